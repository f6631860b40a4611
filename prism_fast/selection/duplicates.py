"""Near-duplicates within one class: greedy, in the order of preference."""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

#: What became of a row that is no duplicate.
ACCEPTED, OVER_QUOTA = -1, -2
_BLOCK = 256
_ROUNDING = 1e-6  # the cosine of a vector with itself is 1 only to float32's last bits


class _Pool:
    """The rows accepted so far, and their features."""

    def __init__(self, size: int, width: int) -> None:
        self._features = np.empty((size, width), np.float32)
        self.rows = np.empty(size, np.int64)
        self.count = 0

    @property
    def full(self) -> bool:
        return self.count == len(self.rows)

    def add(self, row: int, feature: Floats) -> None:
        self._features[self.count], self.rows[self.count] = feature, row
        self.count += 1

    def cosines(self, block: Floats) -> Floats:
        """Shapes: block (b, d) -> (b, accepted)."""
        return block @ self._features[: self.count].T


def _first(hits: Bools) -> int | None:
    """Position of the first hit, None without one."""
    place = int(hits.argmax()) if len(hits) else 0
    return place if len(hits) and hits[place] else None


def keep_distinct(features: Floats, quota: int, cosine: float) -> Integers:
    """What becomes of each sample of a class, (n,): ACCEPTED, OVER_QUOTA, or the row that it repeats.

    Going through the rows in order, one is accepted unless its cosine with an accepted row is ``cosine`` or more; it
    repeats the first such row. Once ``quota`` are accepted, all that follow are over it. Blocks of rows are compared at
    once, so that memory is a second copy of the features at most.

    Shapes: features (n, d), of unit length, in order of preference.
    """
    limit, pool = cosine - _ROUNDING, _Pool(min(quota, len(features)), features.shape[1])
    fate = np.full(len(features), OVER_QUOTA, np.int64)
    for start in range(0, len(features), _BLOCK):
        block = features[start : start + _BLOCK]
        before, older = pool.cosines(block) >= limit, pool.count
        among = block @ block.T >= limit
        for i, feature in enumerate(block):
            if pool.full:
                return fate
            earlier = _first(before[i])
            if earlier is not None:
                fate[start + i] = pool.rows[earlier]
                continue
            fellows = pool.rows[older : pool.count]  # accepted from this block
            same = _first(among[i, fellows - start])
            if same is not None:
                fate[start + i] = fellows[same]
                continue
            fate[start + i] = ACCEPTED
            pool.add(start + i, feature)
    return fate
