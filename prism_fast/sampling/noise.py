"""Counter-based random numbers: each is a function of (seed, sample index, step, stream) and of nothing else.

Philox 4×64 (Salmon et al. 2011) gives the bits; Box–Muller in float64 gives normals. NumPy's own normal generator is
not used because its stream may change between versions; the raw bits may not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a draw is for; streams never overlap."""

    INITIAL = 0
    VIEW = 1
    SOLVER = 2


def uniform(seed: int, index: int, step: int, stream: Stream, count: int) -> np.ndarray:
    """``count`` float64 numbers in [0, 1)."""
    bits = np.random.Philox(key=[seed, int(stream)], counter=[0, 0, step, index]).random_raw(count)
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53)


def normal(seed: int, index: int, step: int, stream: Stream, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 numbers of the given shape."""
    count = math.prod(shape)
    pairs = (count + 1) // 2
    draws = uniform(seed, index, step, stream, 2 * pairs)
    radius = np.sqrt(-2.0 * np.log1p(-draws[:pairs]))
    angle = 2.0 * math.pi * draws[pairs:]
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return both[:count].reshape(shape).astype(np.float32)


def initial_latents(seed: int, indices: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Starting noise of each sample: (len(indices), *shape)."""
    return torch.from_numpy(np.stack([normal(seed, i, 0, Stream.INITIAL, shape) for i in indices]))


def view_draws(seed: int, indices: Sequence[int], step: int) -> np.ndarray:
    """Uniform draws (len(indices), 4) of each sample's random view at one step."""
    return np.stack([uniform(seed, i, step, Stream.VIEW, 4) for i in indices])
