"""Synthetic pictures that cuts are chosen by."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

Pictures = Callable[[], Iterator[Tensor]]


def first(images: Pictures | None, count: int) -> list[Tensor]:
    """The first batches, until they hold ``count`` pictures; fewer where there are no more."""
    shown: list[Tensor] = []
    for batch in images() if images is not None else ():
        shown.append(batch)
        if sum(map(len, shown)) >= count:
            break
    return shown
