"""What nobody trains on is drawn by (seed, index), a share of the samples, and as many as asked for at most."""

from __future__ import annotations

import pytest

from prism_fast.data.held_out import split
from prism_fast.dataset.shard_set import ShardSet


def indices(shards: ShardSet) -> list[int]:
    return [entry.index for shard in shards.shards for entry in shard.entries()]


@pytest.mark.parametrize(
    ("share", "most", "count"), [(0.25, 2048, 6), (0.25, 3, 3), (1e-6, 2048, 1), (0.5, 2048, 11), (0.0, 2048, 0)]
)
def test_every_sample_is_in_one_part(shards: ShardSet, share: float, most: int, count: int) -> None:
    trained, held_out = split(shards, share, most, 3)
    assert (trained.rows, held_out.rows) == (22 - count, count)
    assert (len(indices(trained)), len(indices(held_out))) == (22 - count, count)
    assert sorted(indices(trained) + indices(held_out)) == list(range(22))
    assert (held_out.classes, held_out.image_ext) == (3, "png")
    assert len({sample.index for sample in held_out.samples()}) == count


def test_another_seed_holds_out_others_and_the_same_one_the_same(shards: ShardSet) -> None:
    first, again, other = (indices(split(shards, 0.4, 2048, seed)[1]) for seed in (3, 3, 4))
    assert first == again != other


def test_what_is_held_out_hangs_on_no_other_sample(shards: ShardSet) -> None:
    """Of a part of the samples, those stay held out whose numbers are smallest there too."""
    whole = indices(split(shards, 0.5, 2048, 3)[1])
    part = ShardSet(shards.shards[:2], 16, 3, "png")
    count = sum(index < 16 for index in whole)
    assert indices(split(part, 1.0, count, 3)[1]) == [index for index in whole if index < 16]


def test_what_is_rejected_is_in_no_part(shards: ShardSet) -> None:
    some = (shards.shards[0].without(frozenset(range(8)) - {5}), shards.shards[1].without(frozenset({8, 9})))
    trained, held_out = split(ShardSet(some, 7, 3, "png"), 0.3, 2048, 3)
    assert sorted(indices(trained) + indices(held_out)) == [5, 10, 11, 12, 13, 14, 15]
    assert held_out.rows == 2
    assert all(shard.kept for shard in (*trained.shards, *held_out.shards))


def test_something_is_left_to_train_on(shards: ShardSet) -> None:
    two = (shards.shards[0].without(frozenset(range(2, 8))),)
    trained, held_out = split(ShardSet(two, 2, 3, "png"), 0.5, 2048, 3)
    assert (trained.rows, held_out.rows) == (1, 1)
    one = (shards.shards[0].without(frozenset(range(1, 8))),)
    trained, held_out = split(ShardSet(one, 1, 3, "png"), 0.5, 2048, 3)
    assert (trained.rows, held_out.rows) == (1, 0)
