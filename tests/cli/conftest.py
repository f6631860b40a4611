"""The command line in this process, with everything it changes in the process put back."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import diffusers.utils.logging as diffusers_logging
import pytest
import torch
import transformers.utils.logging as transformers_logging

from prism_fast.cli import main as cli
from prism_fast.config import load_config
from prism_fast.workers.synthesize import synthesize
from tests.tiny import write_config

LIBRARIES = (diffusers_logging, transformers_logging)


@contextmanager
def restored() -> Iterator[None]:
    """Threads, cuDNN, captured warnings, the libraries' verbosity and progress bars as they were."""
    threads, show, deterministic = (
        torch.get_num_threads(),
        warnings.showwarning,
        torch.backends.cudnn.deterministic,
    )
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in LIBRARIES]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = deterministic
        logging.captureWarnings(False)
        warnings.showwarning = show
        for library, (verbosity, bars) in zip(LIBRARIES, before, strict=True):
            library.set_verbosity(verbosity)
            (library.enable_progress_bar if bars else library.disable_progress_bar)()


@dataclass(frozen=True)
class Answer:
    """What a user sees of one command."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one line on standard error that a failed command prints, and nothing else."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: "), line
        assert self.out == ""
        return line.removeprefix("error: ")


Command = Callable[..., Answer]


@pytest.fixture
def prism(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """``prism("synthesize", ...)``: the exit code and both streams, those of libraries in C included."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["prism-fast", *map(str, arguments)])
        capfd.readouterr()
        with restored(), pytest.raises(SystemExit) as stop:
            cli.main()
        found = capfd.readouterr()
        return Answer(int(stop.value.code or 0), found.out, found.err)

    return run


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of ten images of three classes, and a student that trains in a moment."""
    return write_config(
        tmp_path_factory.mktemp("cli"),
        distill={
            "student": "test_resnet", "image_size": 32, "steps": 6, "batch_size": 4, "warmup_steps": 1,
            "loader": "torch", "checkpoint_every": 3,
        },
    )  # fmt: skip


@pytest.fixture(scope="package")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of it; read only."""
    out = tmp_path_factory.mktemp("made") / "run"
    synthesize(load_config(str(tiny)), out)
    return out
