"""Which part of a picture a view is: a box and a flip, drawn from (seed, sample, turn) and the picture's size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from prism_fast.views.counter import Stream, uniforms

Indices = np.ndarray[Any, np.dtype[np.int64]]
Sizes = np.ndarray[Any, np.dtype[np.int32]]
Flips = np.ndarray[Any, np.dtype[np.bool_]]

_ATTEMPTS = 10
_ASPECT = (math.log(3 / 4), math.log(4 / 3))


@dataclass(frozen=True)
class ViewRule:
    """What views are drawn by: the seed, the range of a box's part of the area, whether half of them are mirrored."""

    seed: int
    crop_scale: tuple[float, float]
    flip: bool


@dataclass(frozen=True)
class Views:
    """A view of each of n pictures.

    Shapes: boxes (n, 4): top, left, height, width in pixels; flips (n,): whether it is mirrored.
    Dtypes: boxes int32; flips bool.
    """

    boxes: Sizes
    flips: Flips


def draw_views(rule: ViewRule, indices: Indices, turns: Indices, sizes: Sizes) -> Views:
    """A view of each sample: area uniform in ``crop_scale``, aspect log-uniform in 3/4..4/3, place uniform.

    Of ten boxes the first that fits into the picture; the whole picture where none does. Each sample's view depends on
    its own (index, turn, size) only.

    Shapes: indices (n,), turns (n,), sizes (n, 2): height and width.
    Dtypes: indices and turns int64; sizes int32.
    Reference: Szegedy et al. 2015, Going Deeper with Convolutions, section 6.
    """
    draws = uniforms(rule.seed, Stream.VIEW, indices, turns, 3 + 2 * _ATTEMPTS)
    shapes = _shapes(rule, draws[:, 3:].reshape(-1, _ATTEMPTS, 2), sizes)
    places = np.floor(draws[:, :2] * (sizes - shapes + 1)).astype(np.int32)
    flips = (draws[:, 2] < 0.5) if rule.flip else np.zeros(len(draws), np.bool_)
    return Views(np.concatenate([places, shapes], axis=1), flips)


def _shapes(rule: ViewRule, draws: np.ndarray[Any, Any], sizes: Sizes) -> Sizes:
    """Height and width of the first of each sample's boxes (n, attempts, 2) that fits, or of its picture."""
    low, high = rule.crop_scale
    area = sizes.astype(np.float64).prod(axis=1)[:, None] * (low + (high - low) * draws[..., 0])
    aspect = np.exp(_ASPECT[0] + (_ASPECT[1] - _ASPECT[0]) * draws[..., 1])
    tried = np.rint(np.sqrt(np.stack([area / aspect, area * aspect], axis=2))).astype(np.int32)
    fits = ((tried > 0) & (tried <= sizes[:, None])).all(axis=2)
    first = np.take_along_axis(tried, fits.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    return np.where(fits.any(axis=1)[:, None], first, sizes).astype(np.int32)
