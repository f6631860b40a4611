"""Overlap stages of work on a stream of items, a bounded number of them in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from typing import Any

Stage = Callable[[Any], Any]


def pipelined(items: Iterable[Any], stages: Sequence[Stage], depth: int, streams: int = 1) -> Iterator[Any]:
    """Each item through every stage, in order; results come in the order of the items.

    With ``depth`` 0 and one stream, one item at a time goes through all stages in this thread. Otherwise the first
    stage has ``streams`` threads and each of the others one, which takes the items in their order; at most ``depth`` +
    ``streams`` items are between the first stage and the caller.
    What a stage raises is raised here, in the item's turn; items behind it that have not begun are dropped. When
    ``items`` raises, those that have begun are finished first.
    """
    if depth == 0 and streams == 1:
        for item in items:
            yield reduce(lambda value, stage: stage(value), stages, item)
        return
    waiting: deque[_InFlight] = deque()
    with ExitStack() as stack:
        pools = [ThreadPoolExecutor(1 if number else streams) for number in range(len(stages))]
        for pool in pools:
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        source = iter(items)
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except BaseException:
                for done in [flight.done for flight in waiting if not flight.begun.cancel()]:
                    yield done.result()
                raise
            waiting.append(_chain(pools, stages, item))
            if len(waiting) >= depth + streams:
                yield waiting.popleft().done.result()
        while waiting:
            yield waiting.popleft().done.result()


@dataclass(frozen=True)
class _InFlight:
    """An item's first stage and its last."""

    begun: Future[Any]
    done: Future[Any]


def _chain(pools: Sequence[ThreadPoolExecutor], stages: Sequence[Stage], item: Any) -> _InFlight:
    begun = future = pools[0].submit(stages[0], item)
    for pool, stage in zip(pools[1:], stages[1:], strict=True):
        future = pool.submit(_after, stage, future)
    return _InFlight(begun, future)


def _after(stage: Stage, before: Future[Any]) -> Any:
    return stage(before.result())
