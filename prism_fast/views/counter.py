"""Counter-based random numbers of many samples at once: each is a function of (seed, stream, a, b) and its place.

Philox 4×32 with ten rounds, on arrays: what a sample draws depends on no other sample and on no batch.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Uniforms = np.ndarray[Any, np.dtype[np.float64]]
_Words = np.ndarray[Any, np.dtype[np.uint64]]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_LEFT, _RIGHT = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
#: Of each of the two numbers that a draw is keyed by.
COUNTER_BITS = 48
_MOST = 1 << 16


class Stream(IntEnum):
    """What a draw is for; streams never overlap."""

    VIEW = 1
    SHARDS = 2
    SAMPLES = 3
    HELD_OUT = 4
    COLOUR = 5
    OPERATION = 6
    ERASING = 7
    MIX = 8


def uniforms(seed: int, stream: Stream, a: ArrayLike, b: ArrayLike, count: int) -> Uniforms:
    """``count`` numbers in [0, 1) of 53 bits for each pair of ``a`` and ``b``, which are broadcast.

    Key: the seed's low and high half. Counter: (stream and block, low half of a, low half of b, their upper bits).

    Shapes: a (n,), b (n,) to (n, count).
    Dtypes: a and b whole numbers from 0 to 2^48 - 1; float64.

    Raises:
        ValueError: a counter or the count is out of range.

    Reference: Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, section 3.3.
    """
    left, right = np.broadcast_arrays(np.atleast_1d(a), np.atleast_1d(b))
    blocks = -(-count // 2)
    for given in (left, right):
        if given.size and not 0 <= int(given.min()) <= int(given.max()) < 1 << COUNTER_BITS:
            raise ValueError(
                f"counters must be 0 to 2^{COUNTER_BITS} - 1, got {int(given.min())} to {int(given.max())}"
            )
    if not 0 <= blocks < _MOST:
        raise ValueError(f"count must be 0 to {2 * _MOST - 2}, got {count}")
    first, second = (given.astype(np.uint64)[:, None] for given in (left, right))
    block = (np.uint64(int(stream) << 16) + np.arange(blocks, dtype=np.uint64))[None, :]
    words = philox(seed, block, first & _LOW, second & _LOW, first >> _HALF | second >> _HALF << np.uint64(16))
    pairs = np.stack(words, axis=2).reshape(len(left), 2 * blocks, 2)
    high, low = pairs[..., 0] >> np.uint64(5), pairs[..., 1] >> np.uint64(6)
    found: Uniforms = (high * np.float64(1 << 26) + low) * 2.0**-53
    return found[:, :count]


def philox(seed: int, *counter: _Words) -> tuple[_Words, ...]:
    """Four words of 32 random bits, in uint64, for each counter of four such words, which are broadcast."""
    a, b, c, d = np.broadcast_arrays(*counter)
    k, m = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(10):
        left, right = a * _LEFT, c * _RIGHT  # 32 by 32 bits: they fit
        a, b, c, d = right >> _HALF ^ b ^ np.uint64(k), right & _LOW, left >> _HALF ^ d ^ np.uint64(m), left & _LOW
        k, m = (k + _WEYL[0]) & 0xFFFFFFFF, (m + _WEYL[1]) & 0xFFFFFFFF
    return a, b, c, d
