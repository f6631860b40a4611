"""What is done to a student's pictures after the crop, on the student's device and before a live teacher sees them."""

from __future__ import annotations

from pydantic import Field

from prism_fast.config.base import Document


class AugmentConfig(Document):
    """Everything is drawn from (seed, place in the stream), so that a resumed training draws the same.

    In this order: colours, RandAugment, erasing, then mixup or cutmix.
    """

    brightness: float = Field(0.0, ge=0, lt=1, description="factor drawn from 1 - x to 1 + x")
    contrast: float = Field(0.0, ge=0, lt=1, description="factor drawn from 1 - x to 1 + x")
    saturation: float = Field(0.0, ge=0, lt=1, description="factor drawn from 1 - x to 1 + x")
    hue: float = Field(0.0, ge=0, le=0.5, description="turn drawn from -x to x, in turns")
    rand_augment: int = Field(
        0, ge=0, le=15, description="operations of RandAugment, of torchvision's table, a picture gets; 0: none"
    )
    magnitude: int = Field(9, ge=0, le=30, description="of RandAugment's operations; 30: the whole range")
    erasing: float = Field(0.0, ge=0, le=1, description="probability that a box of a picture becomes normal noise")
    mixup: float = Field(
        0.0, ge=0, description="alpha of mixup's Beta(alpha, alpha); 0: off; with cutmix half of the pairs each"
    )
    cutmix: float = Field(0.0, ge=0, description="alpha of cutmix's Beta(alpha, alpha); 0: off")
    mix_probability: float = Field(1.0, ge=0, le=1, description="that a pair of pictures is mixed at all")

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed with each other."""
        return bool(self.mixup or self.cutmix) and self.mix_probability > 0

    @property
    def recolours(self) -> bool:
        """Whether a picture is changed at all beyond its crop, mixing apart."""
        return any((self.brightness, self.contrast, self.saturation, self.hue, self.rand_augment, self.erasing))
