"""What several folders share: a finished tiny run, a run of the stub, shards of toy pictures."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.stub import Stub, stub_config
from prism_fast.config import RunConfig, load_config
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.workers import leases
from prism_fast.workers.synthesize import synthesize
from tests.data.toy import write_run
from tests.runs import contents
from tests.tiny import write_config


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Sums over threads are split by their number: bit-equality is claimed for one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _signals_strike() -> Iterator[None]:
    """``nohup`` ignores SIGHUP, a shell's ``&`` SIGINT, as they should; these tests, and what they start, do not."""
    before = [signal.signal(signal.SIGHUP, signal.SIG_DFL), signal.signal(signal.SIGINT, signal.default_int_handler)]
    yield
    for number, handler in zip((signal.SIGHUP, signal.SIGINT), before, strict=True):
        signal.signal(number, handler)


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


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunConfig:
    """Seven images of the stub in shards of two; workers of this process look often whether others are done."""
    monkeypatch.setattr(leases, "POLL_S", 0.001)
    return stub_config(tmp_path)


@pytest.fixture
def stubbed_files(stubbed: RunConfig, tmp_path: Path) -> dict[str, bytes]:
    """What the undisturbed run of it holds, on the disk."""
    synthesize(stubbed, tmp_path / "undisturbed", generator=Stub(stubbed))
    return contents(tmp_path / "undisturbed")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """22 pictures of three classes, learnable within a few steps; read only."""
    return ShardSet.discover(write_run(tmp_path_factory.mktemp("toy") / "run"))
