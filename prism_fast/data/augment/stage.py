"""The stage between a loader and the networks: a batch in, the same samples changed out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment.erasing import Erasing
from prism_fast.data.augment.jitter import Jitter
from prism_fast.data.augment.mixing import Mixing
from prism_fast.data.augment.part import Drawn, Part
from prism_fast.data.augment.rand_augment import RandAugment
from prism_fast.data.batch import Batch
from prism_fast.sampling.transfer import to_device


class Augment:
    """Colour jitter, RandAugment, random erasing, then mixup or cutmix, on the batch's own device.

    What happens to a sample is a function of (seed, its place in the stream), so that it is the same in every batch,
    on every rank and after a resume; of mixed ones also of the neighbour, which even batches never part. Draws are made
    on the host and reach the device in one copy, which nobody waits for. A live teacher is given what comes out: it
    sees the student's pixels.

    ``views`` are the crops of a picture that lie behind one another in a batch: they are not mixed with each other.

    A configuration that changes nothing gives back the batch itself.
    """

    def __init__(
        self,
        config: AugmentConfig,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        views: int = 1,
    ) -> None:
        moments = [torch.tensor(x, dtype=torch.float32).view(1, 3, 1, 1) for x in (mean, std)]
        self._mean, self._std = to_device(moments, device)
        self._device = device
        self._colours: list[Part] = []
        if any((config.brightness, config.contrast, config.saturation, config.hue)):
            self._colours.append(Jitter(config, seed))
        if config.rand_augment:
            self._colours.append(RandAugment(config, seed, self._mean))
        self._erasing = Erasing(config, seed, device) if config.erasing else None
        self._mixing = Mixing(config, seed, views) if config.mixes else None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        """The batch, augmented; the given one stays as it is.

        Shapes: those of :class:`~prism_fast.data.batch.Batch`.
        Dtypes: images keep theirs; in between they are float32.

        Raises:
            InputError: pictures are to be mixed and one has no partner.
        """
        parts = [*self._colours, *(part for part in (self._erasing, self._mixing) if part)]
        if not parts:
            return batch
        drawn = self._draw(parts, batch)
        images = self._before_mixing(batch.images, drawn)
        if self._mixing:
            images = self._mixing.apply(images, drawn[-1])
            batch = self._mixing.targets(batch, drawn[-1])
        return replace(batch, images=images.to(batch.images.dtype))

    def _draw(self, parts: Sequence[Part], batch: Batch) -> list[Drawn]:
        """What the parts draw, on the device after one copy of all of it."""
        height, width = batch.images.shape[2:]
        drawn = [part.draw(batch.positions, height, width) for part in parts]
        moved = iter(to_device([x for one in drawn for x in one.tensors], self._device))
        return [replace(one, tensors=tuple(next(moved) for _ in one.tensors)) for one in drawn]

    def _before_mixing(self, images: Tensor, drawn: Sequence[Drawn]) -> Tensor:
        """Pictures of our own, float32: what happens to each of them alone."""
        if self._colours:
            images = self._pixels(images)
            for part, own in zip(self._colours, drawn, strict=False):
                images = part.apply(images, own)
            images.sub_(self._mean).div_(self._std)
        elif self._erasing:
            images = images.to(torch.float32, copy=True)
        if self._erasing:
            images = self._erasing.apply(images, drawn[len(self._colours)])
        return images.float().contiguous(memory_format=torch.channels_last)

    def _pixels(self, images: Tensor) -> Tensor:
        """Values in 0..1, one plane a channel, over which the operations on colours are faster on the CPU."""
        # Not .to(memory_format=...): it walks the wrong way round, five times slower on the CPU.
        planes = images.float().contiguous()
        planes = planes.clone() if planes is images else planes
        return planes.mul_(self._std).add_(self._mean).clamp_(0, 1)
