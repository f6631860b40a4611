"""The pixels of a view: what a teacher labels is what a student sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from prism_fast.views.draw import Views


def render(image: Tensor, box: Sequence[int], flip: bool, side: int) -> Tensor:
    """One view: the box (top, left, height, width) of a picture, resized, and mirrored where ``flip`` says so.

    Bilinear in float, nothing is rounded. Where pixels shrink, the filter is a triangle as wide as the step; beyond the
    box its edge pixels go on. DALI does the same, while torch and Pillow leave the filter's outer part away, which
    changes a view's outermost pixels by up to 15 of 255.

    Shapes: image (3, h, w) to (3, side, side).
    Dtypes: uint8 to float32 in 0..1.
    """
    top, left, height, width = (int(value) for value in box)
    crop = image[None, :, top : top + height, left : left + width].float() / 255
    seen = _stretch(_stretch(crop, 2, side), 3, side)[0]
    return seen.flip(2) if flip else seen


def render_all(images: Tensor, views: Views, side: int) -> Tensor:
    """A view of each picture, on the pictures' device; see :func:`render`.

    Shapes: images (n, 3, h, w), n views, to (n, 3, side, side).
    Dtypes: uint8 to float32 in 0..1.
    """
    pairs = zip(images, views.boxes.tolist(), views.flips.tolist(), strict=True)
    return torch.stack([render(image, box, flip, side) for image, box, flip in pairs])


def _stretch(pixels: Tensor, axis: int, side: int) -> Tensor:
    """Pixels (1, 3, h, w) with ``side`` of them along one axis."""
    length = pixels.shape[axis]
    size = (side, pixels.shape[3]) if axis == 2 else (pixels.shape[2], side)
    out = interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    # Only the outermost output reaches beyond the box: (o + 1/2) steps from the edge, a step wide.
    if outside := _outside(length, side):
        for end in (0, -1):
            out.select(axis, end).lerp_(pixels.select(axis, end), outside)
    return out


@lru_cache(4096)
def _outside(length: int, side: int) -> float:
    """The part of the outermost output's filter that lies beyond the box."""
    step = length / side
    if step <= 1:
        return 0.0
    weights = {i: 1 - abs((i + 0.5) / step - 0.5) for i in range(-math.ceil(step), math.ceil(2 * step) + 1)}
    beyond = sum(weight for i, weight in weights.items() if weight > 0 and not 0 <= i < length)
    return beyond / sum(weight for weight in weights.values() if weight > 0)
