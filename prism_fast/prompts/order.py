"""In which order the turns of a class are taken, and which come next when some are spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from itertools import count, islice

#: The turns of a class, all of them, in order of preference; each once.
Order = Callable[[int], Iterator[int]]


def in_turn(label: int) -> Iterator[int]:
    """The sequence of prompts as it is."""
    return count()


def next_turns(order: Order, label: int, spent: Set[int], wanted: int) -> list[int]:
    """The next turns of a class that are not spent."""
    return list(islice((turn for turn in order(label) if turn not in spent), wanted))
