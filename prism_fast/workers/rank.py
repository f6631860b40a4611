"""Which of several workers one is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from prism_fast.errors import InputError
from prism_fast.storage.yaml_document import cut

_WHOLE = re.compile("[0-9]{1,9}")


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
        number, mark, workers = text.partition("/")
        found = cls.of(number, workers, 1) if mark else None
        if found is None:
            raise InputError(f"--worker {cut(text)} is not i/N with 1 <= i <= N, for example 2/8")
        return found

    @classmethod
    def of(cls, number: str, workers: str, first: int) -> Self | None:
        """The worker that two texts say, whose numbers are counted from ``first``; None if they say none."""
        if not _WHOLE.fullmatch(number) or not _WHOLE.fullmatch(workers):
            return None
        place = int(number) - first + 1
        return cls(place, int(workers)) if 1 <= place <= int(workers) else None

    def __str__(self) -> str:
        return f"{self.number}/{self.workers}"

    def order(self, shards: Sequence[int]) -> list[int]:
        """All of ``shards``, beginning at this worker's own part, so that workers seldom ask for the same one."""
        first = len(shards) * (self.number - 1) // self.workers
        return [*shards[first:], *shards[:first]]


def rank_of_torchrun() -> Rank:
    """Rank as torchrun says it.

    Raises:
        InputError: not started by torchrun, or what it says is no rank.
    """
    return _of_environment("")


def local_rank_of_torchrun() -> Rank:
    """Rank among those on this machine; of one where torchrun says nothing about it.

    Raises:
        InputError: what it says is no rank.
    """
    alone = not {"LOCAL_RANK", "LOCAL_WORLD_SIZE"} & os.environ.keys()
    return Rank() if alone else _of_environment("LOCAL_")


def _of_environment(prefix: str) -> Rank:
    number, workers = (os.environ.get(f"{prefix}{name}") for name in ("RANK", "WORLD_SIZE"))
    found = Rank.of(number or "", workers or "", 0)
    if found is None:
        said = " and ".join("nothing" if text is None else cut(repr(text)) for text in (number, workers))
        raise InputError(
            f"--launch torchrun needs {prefix}RANK and {prefix}WORLD_SIZE as torchrun sets them, not {said}; start "
            "'torchrun --no-python --nproc-per-node N prism-fast synthesize ... --launch torchrun', or use "
            "--launch local"
        )
    return found
