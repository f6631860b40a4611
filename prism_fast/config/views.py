"""The views of a sample whose logits are stored."""

from __future__ import annotations

from pydantic import Field, model_validator

from prism_fast.config.base import MOST_SIDE, SMALLEST_VIEW, Document, require_area

#: Of up to so many classes a view's logits are stored whole.
WHOLE_CLASSES = 256
MOST_VIEWS = 4_096


class ViewsConfig(Document):
    """Crops of each image that the teacher labels beforehand, for ``distill.teacher: views``.

    View v of sample i is a box and a flip drawn from (seed, i, v); the teacher sees the crop resized to ``image_size``.
    """

    count: int = Field(0, ge=0, le=MOST_VIEWS, description="views of each sample that synthesis labels; 0: none")
    image_size: int | None = Field(
        None, ge=16, le=MOST_SIDE, description="side of a crop when the teacher sees it; null: its own"
    )
    crop_scale: tuple[float, float] = Field((0.5, 1.0), description="area of the crop")
    flip: bool = True
    top_k: int = Field(
        64, ge=1, le=WHOLE_CLASSES, description="of more than 256 classes, so many logits of a view and the rest as one"
    )

    @model_validator(mode="after")
    def _ordered(self) -> ViewsConfig:
        require_area("crop_scale", self.crop_scale)
        if self.crop_scale[0] < SMALLEST_VIEW:
            raise ValueError(f"crop_scale must begin at {SMALLEST_VIEW} or more, got {self.crop_scale[0]}")
        return self
