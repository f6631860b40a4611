"""Samples that nobody trains on, to watch a training by."""

from __future__ import annotations

import numpy as np

from prism_fast.data.table import INDEX, read_table
from prism_fast.dataset.shard import Shard
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
    named = [frozenset(own[out].tolist()) for own, out in zip(indices, held, strict=True)]
    pairs = list(zip(shards.shards, named, strict=True))
    trained = [shard.without(shard.rejected | out) if out else shard for shard, out in pairs]
    kept = [shard.keeping(out) for shard, out in pairs if out]
    return _set(shards, [shard for shard in trained if shard.kept]), _set(shards, kept)


def _set(shards: ShardSet, some: list[Shard]) -> ShardSet:
    return ShardSet(tuple(some), sum(shard.kept for shard in some), shards.classes, shards.image_ext)
