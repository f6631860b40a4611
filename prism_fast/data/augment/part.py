"""What the parts of an augmentation have in common: draws on the host, work on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from prism_fast.data.batch import Positions

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

#: What changes pictures in place, each by its row of the parameters.
Kernel = Callable[[Tensor, Tensor], Tensor]
#: Numbers in a piece of a batch on the CPU: with its intermediates it stays in the cache.
_PIECE = 1 << 18


@dataclass(frozen=True)
class Drawn:
    """What a part drew for a batch: tensors that follow the pictures to their device.

    ``counts`` stay on the host: how many pictures each of a part's groups has, so that nobody asks the device.
    """

    tensors: tuple[Tensor, ...]
    counts: tuple[int, ...] = ()


class Part(Protocol):
    """A change of pictures that is drawn for each apart."""

    def draw(self, positions: Positions, height: int, width: int) -> Drawn:
        """What happens to the samples at these places of the stream, on the host."""
        ...

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """The changed pictures, in the place of ``images``; ``drawn`` lies on their device."""
        ...


def column(values: Floats) -> Tensor:
    """A number for each picture, to be broadcast over its pixels: (n,) to (n, 1, 1, 1), float32."""
    return torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1, 1)


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in each box.

    Shapes: boxes (n, 4): top, bottom, left, right, the ends outside; to (n, 1, height, width).
    Dtypes: int64 to bool.
    """
    top, bottom, left, right = boxes.view(-1, 4, 1, 1, 1).unbind(1)
    y = torch.arange(height, device=boxes.device).view(height, 1)
    x = torch.arange(width, device=boxes.device)
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def in_pieces(kernel: Kernel, images: Tensor, parameters: Tensor) -> Tensor:
    """``kernel(images, parameters)``; on the CPU a few pictures at a time, which is two to six times as fast there.

    The time goes into fresh memory for intermediates as large as the batch.
    """
    size = max(1, _PIECE // images[0].numel()) if images.device.type == "cpu" else len(images)
    for some, own in zip(images.split(size), parameters.split(size), strict=True):
        kernel(some, own)
    return images
