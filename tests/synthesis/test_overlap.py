"""Stages overlap, in order and bounded, and an error comes out in its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from prism_fast.synthesis.overlap import pipelined


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(depth: int) -> None:
    found = list(pipelined(range(9), (lambda x: x + 1, lambda x: x * 10, str), depth))
    assert found == [str(10 * (i + 1)) for i in range(9)]


@pytest.mark.parametrize("depth", [0, 2])
def test_no_items_give_no_results(depth: int) -> None:
    assert list(pipelined([], (str,), depth)) == []


def test_stages_run_at_the_same_time() -> None:
    """The first stage of item 1 and the second of item 0 wait for each other: one after the other would never end."""
    meet = threading.Barrier(2, timeout=20)

    def first(item: int) -> int:
        if item == 1:
            meet.wait()
        return item

    def second(item: int) -> int:
        if item == 0:
            meet.wait()
        return item

    assert list(pipelined(range(3), (first, second), 2)) == [0, 1, 2]


def test_a_stage_is_never_entered_twice_at_once() -> None:
    inside, most = [0], [0]

    def stage(item: int) -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        inside[0] -= 1
        return item

    assert list(pipelined(range(50), (stage, lambda x: x), 4)) == list(range(50))
    assert most == [1]


def test_streams_enter_the_first_stage_together_and_results_keep_their_order() -> None:
    """Two items wait for each other in the first stage: one after the other would never end."""
    meet, seen = threading.Barrier(2, timeout=20), []

    def first(item: int) -> int:
        meet.wait()
        return item

    def second(item: int) -> int:
        seen.append(item)
        return item

    assert list(pipelined(range(8), (first, second), 0, 2)) == list(range(8))
    assert seen == list(range(8))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_in_flight_are_bounded(depth: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            taken.append(i)
            yield i

    for given, _ in enumerate(pipelined(items(), (lambda x: x, lambda x: x), depth), 1):
        assert len(taken) - given <= depth


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_is_raised_in_its_items_turn_and_the_rest_is_dropped(depth: int) -> None:
    begun: list[int] = []

    def stage(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError("item two")
        return item

    results = pipelined(range(100), (stage, lambda x: x), depth)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item two"):
        next(results)
    assert max(begun) <= 2 + depth + 1


def test_what_has_begun_is_finished_when_there_is_no_next_item() -> None:
    """As a stop signal asks: the shard whose batches were all denoised is not thrown away."""
    begun, ends = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield from range(3)
        assert begun.wait(20)
        ends.set()
        raise KeyError("stopped")

    def first(item: int) -> int:
        if item == 1:
            begun.set()
            assert ends.wait(20)
            time.sleep(0.3)  # meanwhile the third one is asked whether it has begun
        return item

    made = pipelined(items(), (first, lambda x: x * 10), 3)
    assert [next(made), next(made)] == [0, 10]
    with pytest.raises(KeyError, match="stopped"):
        next(made)
