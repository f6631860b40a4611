"""Random erasing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment.part import Drawn, Floats, Integers, inside
from prism_fast.data.batch import Positions
from prism_fast.sampling.transfer import to_device
from prism_fast.views.counter import Stream, uniforms

#: As in timm; the paper's largest part is 0.4.
_AREA = (0.02, 1 / 3)
_ASPECT = (math.log(0.3), math.log(1 / 0.3))
#: Places of a window in the sheet of noise, along each side.
_WINDOWS = 64


class Erasing:
    """A box of a picture filled with normal noise, a value a pixel and channel, where a draw says so.

    Area uniform in 0.02..1/3, aspect log-uniform in 0.3..1/0.3, place uniform. A box that is longer than the picture
    ends at its edge (the paper draws again; 0.5 % of boxes).

    The noise is a window, one of 4,096 and drawn with the box, of a sheet that the seed alone decides: a generator on
    the device would depend on which pictures share a batch.

    Reference: Zhong et al. 2020, Random Erasing Data Augmentation, algorithm 1; noise as timm's mode ``pixel``.
    """

    def __init__(self, config: AugmentConfig, seed: int, device: torch.device) -> None:
        self._probability, self._seed, self._device = config.erasing, seed, device
        self._sheet = torch.empty(0, 0, 0)

    def draw(self, positions: Positions, height: int, width: int) -> Drawn:
        """The rows that are erased, their boxes and the corners of their windows of the noise."""
        draws = uniforms(self._seed, Stream.ERASING, positions, np.int64(0), 7)
        rows = np.flatnonzero(draws[:, 0] < self._probability)
        draws = draws[rows]
        corners = np.floor(draws[:, 5:] * _WINDOWS).astype(np.int64)
        found = (rows, boxes(draws[:, 1:5], height, width), corners)
        return Drawn(tuple(torch.from_numpy(x) for x in found), (len(rows),))

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Normalised pictures, changed in place."""
        if not drawn.counts[0]:
            return images
        rows, found, corners = drawn.tensors
        height, width = images.shape[2:]
        noise = self._noise(height, width)[:, corners[:, 0], corners[:, 1]].transpose(0, 1)
        erased = torch.where(inside(found, height, width), noise, images.index_select(0, rows))
        return images.index_copy_(0, rows, erased)

    def _noise(self, height: int, width: int) -> Tensor:
        """Every window of the sheet, a view: (3, windows, windows, height, width)."""
        sides = (height + _WINDOWS - 1, width + _WINDOWS - 1)
        if self._sheet.shape[1:] != sides:  # once, unless the pictures' size changes
            self._sheet = to_device([torch.from_numpy(noise_sheet(self._seed, *sides))], self._device)[0]
        return self._sheet.unfold(1, height, 1).unfold(2, width, 1)


def boxes(draws: Floats, height: int, width: int) -> Integers:
    """Boxes of draws of area, aspect and place.

    Shapes: draws (n, 4) to (n, 4): top, bottom, left, right.
    """
    area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * draws[:, 0])
    aspect = np.exp(_ASPECT[0] + (_ASPECT[1] - _ASPECT[0]) * draws[:, 1])
    tall = np.clip(np.rint(np.sqrt(area * aspect)), 1, height)
    wide = np.clip(np.rint(np.sqrt(area / aspect)), 1, width)
    top, left = np.floor(draws[:, 2] * (height - tall + 1)), np.floor(draws[:, 3] * (width - wide + 1))
    found: Integers = np.stack([top, top + tall, left, left + wide], axis=1).astype(np.int64)
    return found


def noise_sheet(seed: int, height: int, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Standard normal numbers by Box and Muller: (3, height, width), float32."""
    pairs = uniforms(seed, Stream.ERASING, np.arange(3 * height), np.int64(1), 2 * width)
    radius, angle = np.sqrt(-2 * np.log1p(-pairs[:, :width])), 2 * math.pi * pairs[:, width:]
    found: Floats = radius * np.cos(angle)
    return found.reshape(3, height, width).astype(np.float32)
