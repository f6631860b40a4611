"""Samples that nobody trains on, to watch a training by."""

from __future__ import annotations

from typing import Any

import numpy as np

from prism_fast.data.order import Integers
from prism_fast.data.table import INDEX, read_table
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.views.counter import Stream, uniforms


def split(shards: ShardSet, share: float, most: int, seed: int) -> tuple[ShardSet, ShardSet]:
    """A shard set without what is held out, and what is held out.

    The samples with the smallest numbers drawn from (seed, index): ``share`` of them, ``most`` at most, and at least
    one of each part where there are two. Without a share, or of one sample, nothing is held out.

    Raises:
        DataError: an index cannot be read.
    """
    count = min(most, max(1, round(share * shards.rows)), shards.rows - 1)
    if share <= 0 or count < 1:
        return shards, ShardSet((), 0, shards.classes, shards.image_ext)
    indices = [read_table(shards.shards, [place]).rows[:, INDEX] for place in range(len(shards.shards))]
    draws = [uniforms(seed, Stream.HELD_OUT, own, 0, 1)[:, 0] for own in indices]
    chosen = np.zeros(shards.rows, np.bool_)
    chosen[np.concatenate(draws).argsort(kind="stable")[:count]] = True
    held = np.split(chosen, np.cumsum([len(own) for own in indices])[:-1])
    return _without(shards, indices, held), _without(shards, indices, [~own for own in held])


def _without(shards: ShardSet, indices: list[Integers], left_out: list[np.ndarray[Any, Any]]) -> ShardSet:
    parts = zip(shards.shards, indices, left_out, strict=True)
    some = [
        shard.without(shard.rejected | frozenset(own[out].tolist())) if out.any() else shard
        for shard, own, out in parts
        if not out.all()
    ]
    return ShardSet(tuple(some), sum(shard.kept for shard in some), shards.classes, shards.image_ext)
