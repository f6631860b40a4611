"""Which sample stands where, and that a million of them are arrays."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from prism_fast.data.order import Order
from prism_fast.dataset.shard_set import ShardSet


def many(shards: ShardSet, count: int, rows: int, size: int) -> ShardSet:
    """A shard set of that many shards of ``rows`` samples and ``size`` bytes, which nobody reads."""
    one = shards.shards[0]
    made = [
        replace(one, record=one.record.model_copy(update={"shard": n, "rows": rows, "size_bytes": size}))
        for n in range(count)
    ]
    return ShardSet(tuple(made), count * rows, 3, "png")


def rows_of(order: Order, epoch: int, total: int) -> list[list[int]]:
    """Rows of the shard set by window, in the epoch's order."""
    found, at = [], 0
    while at < total:
        window = order.window(epoch, at)
        assert window.start == at
        rows = np.concatenate([np.arange(order.first[s], order.first[s + 1]) for s in window.shards])
        found.append(rows[window.picks].tolist())
        at = window.end
    return found


def test_windows_hold_as_many_shards_as_fit(shards: ShardSet) -> None:
    some = many(shards, 10, 4, 100)
    windows = rows_of(Order(some, 3, 300), 0, some.rows)
    assert [len(window) for window in windows] == [12, 12, 12, 4]
    assert sorted(chain.from_iterable(windows)) == list(range(40))
    for window in windows:  # whole shards, shuffled among each other
        assert len({row // 4 for row in window}) == len(window) // 4
        assert window != sorted(window)
    places = [row // 4 for row in windows[0]]
    assert places != sorted(places)


def test_a_shard_larger_than_the_bound_is_a_window_of_its_own(shards: ShardSet) -> None:
    some = many(shards, 3, 4, 1000)
    assert [len(window) for window in rows_of(Order(some, 3, 300), 0, 12)] == [4, 4, 4]


def test_each_epoch_and_each_seed_has_its_own_order(shards: ShardSet) -> None:
    some = many(shards, 10, 4, 100)
    windows = [rows_of(Order(some, seed, 300), epoch, 40) for seed, epoch in ((3, 0), (3, 1), (4, 0))]
    orders = [list(chain.from_iterable(each)) for each in windows]
    assert len({tuple(order) for order in orders}) == 3
    assert len({tuple(row // 4 for row in order) for order in orders}) == 3
    assert all(sorted(order) == list(range(40)) for order in orders)


def test_any_place_can_be_entered(shards: ShardSet) -> None:
    some = many(shards, 10, 4, 100)
    walked, jumped = Order(some, 3, 300), Order(some, 3, 300)
    whole = {(epoch, place): walked.window(epoch, place) for epoch in range(6) for place in range(40)}
    for epoch, place in [(5, 39), (0, 0), (3, 12), (5, 11), (1, 36), (0, 35)]:
        window, wanted = jumped.window(epoch, place), whole[epoch, place]
        assert (window.start, window.shards) == (wanted.start, wanted.shards)
        assert np.array_equal(window.picks, wanted.picks)
        assert window.start <= place < window.end


def test_what_is_remembered_is_bounded(shards: ShardSet) -> None:
    order = Order(many(shards, 10, 4, 100), 3, 100)
    for epoch in range(8):
        for place in range(0, 40, 4):
            order.window(epoch, place)
    assert len(order._windows) <= 3
    assert len(order._epochs) <= 3


@pytest.mark.parametrize(("count", "rows"), [(1280, 1000), (1, 1_280_000)])
def test_a_million_samples_take_little(shards: ShardSet, count: int, rows: int) -> None:
    some = many(shards, count, rows, rows * 100_000)
    tracemalloc.start()
    order = Order(some, 0, 2 << 30)
    sizes = [len(order.window(epoch, place).picks) for epoch in range(2) for place in (0, 1_279_999)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(sizes) == (21_000 if count > 1 else rows)
    assert peak < 100 << 20
