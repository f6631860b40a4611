"""What a step is given, and what it answers."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prism_fast.errors import PrismError

Status = Literal["PASS", "FAIL", "SKIP"]
#: A message of a library may span pages.
MOST_LETTERS = 300


@dataclass(frozen=True)
class Options:
    """What every step is given.

    Attributes:
        device: where it computes, ``cuda:0``.
        work: a folder for what it makes; steps share it.
        config: the user's configuration, a name or a file; None: there is none.
        small: the configuration whose models all other steps take; small ones.
        case: which of its cases a step is asked for: an operator, a backend, a type.
    """

    device: str
    work: str
    config: str | None = None
    small: str = "minis-emoji"
    case: str = ""

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def folder(self, name: str) -> Path:
        """A folder of that name below ``work``, made if it is not there."""
        path = Path(self.work) / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Finding:
    """What a step found, in one line; ``remedy`` says what to do about a step that did not pass, in one line."""

    status: Status
    found: str
    remedy: str = ""
    facts: dict[str, str] = field(default_factory=dict)


def passed(found: str) -> Finding:
    """It works."""
    return Finding("PASS", one_line(found))


def failed(found: str, remedy: str = "") -> Finding:
    """It does not; without a remedy, the step's messages are pointed at."""
    return Finding("FAIL", one_line(found), one_line(remedy))


def skipped(reasons: Sequence[str]) -> Finding:
    """It cannot run here; each reason is a sentence, what to do about it behind a semicolon."""
    halves = [one_line(reason).partition("; ") for reason in dict.fromkeys(reasons)]
    remedies = dict.fromkeys(remedy for _, _, remedy in halves if remedy)
    return Finding("SKIP", "; ".join(found for found, _, _ in halves), "; ".join(remedies) or "none here")


def raised(error: BaseException) -> Finding:
    """What a step raised instead of answering."""
    from prism_engines.memory import is_out_of_memory

    found = str(error) if isinstance(error, PrismError) else f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return failed(found, "free the GPU's memory: nvidia-smi says who holds it; or give a smaller CONFIG")
    return failed(f"{found} ({_place(error)})")


def _place(error: BaseException) -> str:
    """The deepest line of ours that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(frame.filename)] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"


def _is_ours(file: str) -> bool:
    below = file.rpartition("site-packages/")[2]  # of a checkout's own environment, too
    return any(f"{package}/" in below for package in ("prism_fast", "prism_engines", "prism_kernels"))


def one_line(text: str) -> str:
    """A text without its line ends, cut to a readable length."""
    joined = " ".join(text.split())
    return joined if len(joined) <= MOST_LETTERS else f"{joined[: MOST_LETTERS - 3]}..."
