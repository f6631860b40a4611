"""Which of several workers one is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from prism_fast.errors import InputError


@dataclass(frozen=True)
class Rank:
    """Worker ``number`` (from 1) of ``workers``; nobody need know the others, the leases see to that."""

    number: int = 1
    workers: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``2/8``.

        Raises:
            InputError: it is not of that form.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--worker {text} is not i/N with 1 <= i <= N, for example 2/8")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.workers}"

    def order(self, shards: Sequence[int]) -> list[int]:
        """All of ``shards``, beginning at this worker's own part, so that workers seldom ask for the same one."""
        first = len(shards) * (self.number - 1) // self.workers
        return [*shards[first:], *shards[:first]]
