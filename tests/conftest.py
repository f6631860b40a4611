"""One finished tiny run for the whole folder; tests that change it work on a copy."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from prism_fast.config import RunConfig, load_config
from prism_fast.workers.synthesize import synthesize
from tests.tiny import write_config


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Sums over threads are split by their number: bit-equality is claimed for one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _hangs_up() -> Iterator[None]:
    """Under ``nohup`` SIGHUP is ignored, as it should be; these tests, and what they start, are not under it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Ten images in shards of four, four and two."""
    return load_config(str(write_config(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="session")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read only."""
    out = tmp_path_factory.mktemp("finished") / "run"
    synthesize(config, out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run to damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
