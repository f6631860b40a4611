"""What a benchmark is told on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """``repeats`` are timed, one more warms up; ``only`` names rows, none means all of them.

    The rest is for ``distill``: the run that is trained on, its student, timed steps, and where everything is kept.
    """

    device: str = "cpu"
    repeats: int = 4
    only: tuple[str, ...] = ()
    store: Path | None = None
    run: Path | None = None
    student: str | None = None
    steps: int = 40
    out: Path | None = None
