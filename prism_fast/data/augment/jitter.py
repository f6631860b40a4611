"""Colour jitter."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment import colour
from prism_fast.data.augment.part import Drawn, column, in_pieces
from prism_fast.data.batch import Positions
from prism_fast.views.counter import Stream, uniforms


class Jitter:
    """Brightness, contrast, saturation, hue, in this order (torchvision draws the order too).

    Factors are uniform in 1 - x..1 + x, the turn of the hue in -x..x. Each has a draw of its own, so that turning one
    off leaves the others as they are.

    Reference: Krizhevsky et al. 2012, section 4.1, and Howard 2013, section 2, draw colours; the operations are
        torchvision's.
    """

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        ranges = (config.brightness, config.contrast, config.saturation, config.hue)
        operations = (colour.brightness, colour.contrast, colour.saturation, colour.hue)
        centers = (1.0, 1.0, 1.0, 0.0)
        self._seed = seed
        self._steps = [
            (place, operation, center, reach)
            for place, (operation, center, reach) in enumerate(zip(operations, centers, ranges, strict=True))
            if reach
        ]

    def draw(self, positions: Positions, height: int, width: int) -> Drawn:
        """A factor for each picture and operation."""
        draws = 2 * uniforms(self._seed, Stream.COLOUR, positions, np.int64(0), 4) - 1
        return Drawn(tuple(column(center + reach * draws[:, place]) for place, _, center, reach in self._steps))

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Pictures in 0..1, changed in place."""
        for (_, operation, _, _), factor in zip(self._steps, drawn.tensors, strict=True):
            in_pieces(operation, images, factor)
        return images
