"""Colours of a batch, each picture by its own factor, in place.

Every function computes what torchvision's function of that name does with one picture and one number.

Shapes: images (n, 3, h, w), factors (n, 1, 1, 1). Dtypes: float32, pictures in 0..1.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Rec. 601 luma, rounded as in torchvision.
_LUMA = (0.2989, 0.587, 0.114)
_SMALLEST = torch.finfo(torch.float32).tiny


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """``clamp(factor x)``."""
    return images.mul_(factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """``clamp(factor x + (1 - factor) mean(grey))``."""
    return blend(images, grey(images).mean((2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """``clamp(factor x + (1 - factor) grey)``."""
    return blend(images, grey(images), factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """The hue of HSV turned, in turns; value and saturation stay.

    With m = min, C = max - m and the hue H in sixths, ``(R, G, B) = m + C clamp((|H - 3| - 1, 2 - |H - 2|,
    2 - |H - 4|), 0, 1)``: the six cases of the textbook at once.

    Reference: Smith 1978, Color Gamut Transform Pairs (the hexcone model).
    """
    red, green, blue = images.unbind(1)
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    scale = chroma.clamp(min=_SMALLEST)  # of a grey pixel the hue does not matter, but must be a number
    of_blue = (red - green).div_(scale).add_(4)
    of_green = torch.where(high == green, (blue - red).div_(scale).add_(2), of_blue)
    angle = torch.where(high == red, (green - blue).div_(scale), of_green).add_(6 * turn[:, 0]).remainder_(6)
    parts = ((angle - 3).abs_().sub_(1), (angle - 2).abs_().neg_().add_(2), (angle - 4).abs_().neg_().add_(2))
    for channel, part in enumerate(parts):
        images[:, channel] = part.clamp_(0, 1).mul_(chroma).add_(low)
    return images


def grey(images: Tensor) -> Tensor:
    """Luma: (n, 3, h, w) to (n, 1, h, w)."""
    red, green, blue = images.split(1, dim=1)
    luma: Tensor = red.mul(_LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return luma


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``clamp(factor x + (1 - factor) other)``, in place."""
    return images.mul_(factor).add_(other * (1 - factor)).clamp_(0, 1)
