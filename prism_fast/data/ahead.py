"""Work done in a thread, a few pieces ahead of who takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

#: Pieces that wait. DALI holds two more; each is a batch, encoded.
DEPTH = 2


class Ahead(Generic[T]):
    """``work(start)``, ``work(start + step)`` and so on, in order; what it raises, the taker gets in its place."""

    def __init__(self, work: Callable[[int], T], start: int, step: int, depth: int = DEPTH) -> None:
        self._work, self._next, self._step, self._depth = work, start, step, depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prism-fast-ahead")
        self._waiting: deque[Future[T]] = deque()

    def take(self) -> T:
        """The next piece; waits for it."""
        while len(self._waiting) <= self._depth:
            self._waiting.append(self._thread.submit(self._work, self._next))
            self._next += self._step
        return self._waiting.popleft().result()

    def close(self) -> None:
        """Let the piece that is being made end, and make no other."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()
