"""What a report shows of a run: its first pictures and a sample of its energies; the run is never held in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard import Entry, Shard, ShardReader
from prism_fast.dataset.shard_set import ShardSet

MAX_ENERGIES = 50_000  # a mean of so many is known to 0.5 % of the energies' standard deviation
MAX_CLASSES = 64
MAX_PICTURE_BYTES = 64 << 20  # of all grids together; a browser takes a page of so many
_ROUNDS = 4  # classes take turns in a plan; of a class that is quarantined no more is looked for
_AT_LEAST = 20_000


@dataclass(frozen=True)
class Shown:
    """A sample that could be decoded, and its image as it is stored."""

    sample: Sample
    encoded: bytes


def shown_classes(shards: ShardSet, count: int) -> int:
    """Of how many classes a page shows ``count`` pictures: fewer of large ones, going by the bytes of a sample."""
    each = max(1, sum(shard.record.size_bytes for shard in shards.shards) // shards.rows)
    return max(1, min(MAX_CLASSES, shards.classes, MAX_PICTURE_BYTES // (count * each)))


def first_of_each_class(shards: ShardSet, count: int, classes: int = MAX_CLASSES) -> Iterator[Sample]:
    """The first ``count`` samples of each of the first ``classes`` classes, in order of the plan; then reading stops.

    Raises:
        DataError: a shard cannot be read.
    """
    return (shown.sample for shown in first_shown(shards, count, classes))


def first_shown(shards: ShardSet, count: int, classes: int) -> Iterator[Shown]:
    """The same with the stored bytes of their images.

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
                yield _shown(reader, entry)
        looked_at += shard.kept
        if filled == wanted or looked_at >= max(_AT_LEAST, _ROUNDS * count * shards.classes):
            return


def first_pairs(before: ShardSet, after: ShardSet, count: int) -> Iterator[tuple[Shown, Shown]]:
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
                    yield _opened(*partners[entry.index]), _shown(reader, entry)
                    if len(seen) == count:
                        return
        looked_at += shard.kept
        if looked_at >= max(_AT_LEAST, _ROUNDS * after.classes):
            return


def energies(shards: ShardSet, most: int = MAX_ENERGIES) -> Tensor:
    """The final energies that the samples' ``.json`` members say; of more than ``most``, those of so many samples.

    Every shard gives its share, drawn at random, the same ones each time.

    Shapes: returns (min(rows, most),) float32.

    Raises:
        DataError: a shard cannot be read.
    """
    found: list[float] = []
    for shard, places in zip(shards.shards, _drawn(shards, most), strict=True):
        with shard.open() as reader:
            found += (reader.meta(entry)["energy_after"] for entry in shard.entries(places))
    return torch.tensor(found)


def _drawn(shards: ShardSet, most: int) -> Iterator[list[int] | None]:
    """The places that each shard's share of ``most`` samples has in it; None where all are taken."""
    passed = 0
    for shard in shards.shards:
        if shards.rows <= most:
            yield None
            continue
        share = most * (passed + shard.kept) // shards.rows - most * passed // shards.rows
        passed += shard.kept
        places = np.random.default_rng(shard.record.shard).choice(shard.kept, share, replace=False)
        yield sorted(places.tolist())


def _partners(shards: ShardSet, of: Shard) -> dict[int, tuple[Shard, Entry]]:
    """Samples of the same indices, in whatever shards they are."""
    first, last = of.record.first_index, of.record.first_index + of.record.planned - 1
    starts = [shard.record.first_index for shard in shards.shards]
    near = shards.shards[max(0, bisect_right(starts, first) - 1) : bisect_right(starts, last)]
    return {entry.index: (shard, entry) for shard in near for entry in shard.entries()}


def _shown(reader: ShardReader, entry: Entry) -> Shown:
    return Shown(reader.sample(entry), reader.image_bytes(entry))


def _opened(shard: Shard, entry: Entry) -> Shown:
    with shard.open() as reader:
        return _shown(reader, entry)
