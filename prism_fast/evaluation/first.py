"""What a report shows of a run: its first pictures and its energies, read without holding the run in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard import Entry, Shard
from prism_fast.dataset.shard_set import ShardSet

MAX_ENERGIES = 200_000
MAX_CLASSES = 64  # of more a page would be gigabytes
_ROUNDS = 4  # classes take turns in a plan; of a class that is quarantined no more is looked for
_AT_LEAST = 20_000


def first_of_each_class(shards: ShardSet, count: int, classes: int = MAX_CLASSES) -> Iterator[Sample]:
    """The first ``count`` samples of each of the first ``classes`` classes, in order of the plan; then reading stops.

    Raises:
        DataError: a shard cannot be read.
    """
    found: Counter[int] = Counter()
    wanted, filled, looked_at = min(classes, shards.classes), 0, 0
    for shard in shards.shards:
        with shard.open() as reader:
            for entry in shard.entries():
                label = reader.label(entry)
                if label >= wanted or found[label] == count:
                    continue
                found[label] += 1
                filled += found[label] == count
                yield reader.sample(entry)
        looked_at += shard.kept
        if filled == wanted or looked_at >= max(_AT_LEAST, _ROUNDS * count * shards.classes):
            return


def first_pairs(before: ShardSet, after: ShardSet, count: int) -> Iterator[tuple[Sample, Sample]]:
    """Samples of two runs with the same index: the first pair of each class, at most ``count``.

    Raises:
        DataError: a shard cannot be read.
    """
    seen: set[int] = set()
    looked_at = 0
    for shard in after.shards:
        partners = _partners(before, shard)
        with shard.open() as reader:
            for entry in shard.entries():
                if entry.index in partners and (label := reader.label(entry)) not in seen:
                    seen.add(label)
                    yield _sample(*partners[entry.index]), reader.sample(entry)
                    if len(seen) == count:
                        return
        looked_at += shard.kept
        if looked_at >= max(_AT_LEAST, _ROUNDS * after.classes):
            return


def energies(shards: ShardSet, most: int = MAX_ENERGIES) -> Tensor:
    """The final energies that the samples' ``.json`` members say; of more than ``most``, those of every k-th shard.

    Shapes: returns (n,) float32.

    Raises:
        DataError: a shard cannot be read.
    """
    every = -(-shards.rows // most)
    found: list[float] = []
    for shard in shards.shards[::every]:
        with shard.open() as reader:
            found += (reader.meta(entry)["energy_after"] for entry in shard.entries())
    return torch.tensor(found)


def _partners(shards: ShardSet, of: Shard) -> dict[int, tuple[Shard, Entry]]:
    """Samples of the same indices, in whatever shards they are."""
    first, last = of.record.first_index, of.record.first_index + of.record.planned - 1
    starts = [shard.record.first_index for shard in shards.shards]
    near = shards.shards[max(0, bisect_right(starts, first) - 1) : bisect_right(starts, last)]
    return {entry.index: (shard, entry) for shard in near for entry in shard.entries()}


def _sample(shard: Shard, entry: Entry) -> Sample:
    with shard.open() as reader:
        return reader.sample(entry)
