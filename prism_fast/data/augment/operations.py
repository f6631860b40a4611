"""The operations of RandAugment, each on a batch with parameters of its own for every picture, in place.

torchvision's ``affine``, ``adjust_sharpness`` and ``autocontrast`` are not called: they copy a matrix or a kernel to
the device at every call, which the host waits for, or index by a mask.

Shapes: images (n, 3, h, w), parameters (n, 6): the first number, or the six of a matrix. Dtypes: float32, pictures in
0..1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from prism_fast.data.augment import colour


def brightness(images: Tensor, parameters: Tensor) -> Tensor:
    """See :func:`prism_fast.data.augment.colour.brightness`."""
    return colour.brightness(images, first(parameters))


def contrast(images: Tensor, parameters: Tensor) -> Tensor:
    """See :func:`prism_fast.data.augment.colour.contrast`."""
    return colour.contrast(images, first(parameters))


def saturation(images: Tensor, parameters: Tensor) -> Tensor:
    """See :func:`prism_fast.data.augment.colour.saturation`."""
    return colour.saturation(images, first(parameters))


def sharpness(images: Tensor, parameters: Tensor) -> Tensor:
    """``factor x + (1 - factor) smooth(x)`` where smooth weighs a pixel by 5/13 and its 8 neighbours by 1/13 each.

    Pixels at the edge stay; a picture of which no pixel has 8 neighbours too.
    """
    if min(images.shape[2:]) < 3:
        return images
    inner = images[:, :, 1:-1, 1:-1]
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    box = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])  # six times as fast on the CPU as avg_pool2d
    inner.lerp_(box.add_(inner, alpha=4).div_(13), 1 - first(parameters))
    return images.clamp_(0, 1)


def posterize(images: Tensor, parameters: Tensor) -> Tensor:
    """``min(floor(levels x), levels - 1) / levels``."""
    levels = first(parameters)
    images.mul_(levels).floor_()
    return torch.minimum(images, levels - 1, out=images).div_(levels)


def solarize(images: Tensor, parameters: Tensor) -> Tensor:
    """``1 - x`` where x reaches the threshold."""
    return images.copy_(torch.where(images >= first(parameters), 1 - images, images))


def autocontrast(images: Tensor, parameters: Tensor) -> Tensor:
    """Every channel stretched to 0..1; one of a single value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high == low
    low, scale = low.masked_fill(flat, 0), (high - low).masked_fill(flat, 1)
    return images.sub_(low).div_(scale).clamp_(0, 1)


def equalize(images: Tensor, parameters: Tensor) -> Tensor:
    """Every channel's histogram of 256 values made flat, by torchvision, whose function takes a batch as it is."""
    from torchvision.transforms.v2 import functional

    return images.copy_(functional.equalize(images))


class Affine:
    """The picture sampled bilinearly through a matrix; what comes from outside has the colour ``fill``.

    A pixel at (x, y) from the middle shows ``(p0 x + p1 y + p2, p3 x + p4 y + p5)``. The grid is made without a matrix
    product: TF32, which training may turn on, would misplace pixels by a tenth of one.
    """

    def __init__(self, fill: Tensor) -> None:
        self._fill = fill

    def __call__(self, images: Tensor, parameters: Tensor) -> Tensor:
        """The moved pictures; parameters are p0 to p5."""
        height, width = images.shape[2:]
        p = parameters[:, :, None, None].unbind(1)
        y = torch.arange(height, device=images.device).add((1 - height) / 2).view(height, 1)
        x = torch.arange(width, device=images.device).add((1 - width) / 2)
        grid = torch.stack([_grid(p[:3], x, y, width), _grid(p[3:], x, y, height)], dim=3)
        # Zeros outside are the fill where the fill has been taken away.
        moved = grid_sample(images.sub_(self._fill), grid, padding_mode="zeros", align_corners=False)
        return images.copy_(moved.add_(self._fill))


def first(parameters: Tensor) -> Tensor:
    """The first parameter of each picture: (n, 6) to (n, 1, 1, 1)."""
    return parameters[:, :1, None, None]


def _grid(row: tuple[Tensor, ...], x: Tensor, y: Tensor, side: int) -> Tensor:
    """One coordinate in units of half a side."""
    return (row[0] * x + row[1] * y + row[2]) * (2 / side)
