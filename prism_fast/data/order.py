"""Which sample stands where in the stream: a function of the shards and the seed, not of loader, rank or world.

Each epoch puts the shards in an order of its own and shuffles the samples of neighbouring shards among each other, as
many shards as lie together within ``shuffle_bytes``. So the disk is read here and there within a bounded part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from prism_fast.dataset.shard_set import ShardSet
from prism_fast.views.counter import Stream, uniforms

Integers = np.ndarray[Any, np.dtype[np.int64]]
#: Draws made at once: the generator needs a hundred bytes for each.
_PIECE = 1 << 16
#: A batch may reach from one window, or epoch, into the next.
_KEPT = 3


@dataclass(frozen=True)
class Window:
    """Samples shuffled among each other: from place ``start`` of the epoch on, those of ``shards`` as ``picks`` says.

    ``shards`` are ascending places in the shard set; a pick counts the samples of these shards one after another.
    """

    start: int
    shards: tuple[int, ...]
    picks: Integers

    @property
    def end(self) -> int:
        """The place after its last sample."""
        return self.start + len(self.picks)


class Order:
    """The order of the samples of a shard set in every epoch."""

    def __init__(self, shards: ShardSet, seed: int, shuffle_bytes: int) -> None:
        self._seed, self._most = seed, shuffle_bytes
        self._kept = np.array([shard.kept for shard in shards.shards], np.int64)
        self._bytes = np.array([shard.record.size_bytes for shard in shards.shards], np.int64)
        self.first = np.concatenate([[0], np.cumsum(self._kept)])
        self._epochs: dict[int, list[tuple[int, Integers]]] = {}
        self._windows: dict[tuple[int, int], Window] = {}

    def window(self, epoch: int, place: int) -> Window:
        """The window that holds a place, 0 to ``rows`` - 1, of an epoch."""
        parts = self._parts(epoch)
        starts = [start for start, _ in parts]
        number = int(np.searchsorted(starts, place, side="right")) - 1
        if (epoch, number) not in self._windows:
            _make_room(self._windows)
            self._windows[epoch, number] = self._shuffled(epoch, *parts[number])
        return self._windows[epoch, number]

    def _parts(self, epoch: int) -> list[tuple[int, Integers]]:
        """An epoch's windows: where each begins, and its shards."""
        if epoch not in self._epochs:
            _make_room(self._epochs)
            self._epochs[epoch] = self._split(epoch)
        return self._epochs[epoch]

    def _split(self, epoch: int) -> list[tuple[int, Integers]]:
        shards = self._drawn(Stream.SHARDS, epoch, np.arange(len(self._kept))).argsort(kind="stable")
        ends, held = [0], 0
        for place, size in enumerate(self._bytes[shards].tolist()):
            if held and held + size > self._most:
                ends.append(place)
                held = 0
            held += size
        starts = np.concatenate([[0], np.cumsum(self._kept[shards])])
        return [(int(starts[a]), np.sort(shards[a:b])) for a, b in pairwise([*ends, len(shards)])]

    def _shuffled(self, epoch: int, start: int, shards: Integers) -> Window:
        rows = np.concatenate([np.arange(self.first[one], self.first[one + 1]) for one in shards])
        picks = self._drawn(Stream.SAMPLES, epoch, rows).argsort(kind="stable")
        return Window(start, tuple(shards.tolist()), picks)

    def _drawn(self, stream: Stream, epoch: int, counters: Integers) -> np.ndarray[Any, np.dtype[np.float64]]:
        pieces = np.split(counters, range(_PIECE, len(counters), _PIECE))
        return np.concatenate([uniforms(self._seed, stream, epoch, piece, 1)[:, 0] for piece in pieces])


def _make_room(kept: dict[Any, Any]) -> None:
    while len(kept) >= _KEPT:
        del kept[next(iter(kept))]
