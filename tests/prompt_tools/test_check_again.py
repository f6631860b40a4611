"""Checks that were killed, damaged, stopped, or that share a directory end with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism_fast.config import RunConfig, assign
from prism_fast.errors import InputError, RunError, StoppedError
from prism_fast.storage import faults
from prism_fast.workers import leases
from prism_fast.workers.stop import stoppable
from tests.damage import flip
from tests.prompt_tools.checks import Believer, bank_config, check, files


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(leases, "POLL_S", 0.001)
    return bank_config(tmp_path)


@pytest.fixture
def undisturbed(config: RunConfig, tmp_path: Path) -> dict[str, bytes]:
    check(config, tmp_path / "undisturbed")
    return files(tmp_path / "undisturbed")


@pytest.mark.parametrize("ext", ["tar", "idx", "json"])
def test_a_damaged_file_is_made_again_and_said(
    config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes], ext: str
) -> None:
    out, said = tmp_path / "undisturbed", list[str]()
    flip(out / "classes" / f"000001.{ext}")
    found = check(config, out, log=said.append)
    assert (found.made, found.found) == (1, 2)
    assert len(said) == 1
    assert said[0].startswith("class 'dog' is made again: ")
    assert files(out) == undisturbed


def test_a_file_that_is_gone_is_made_again(config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    for name in ("000000.tar", "000001.idx", "000002.json"):
        (tmp_path / "undisturbed" / "classes" / name).unlink()
    assert check(config, tmp_path / "undisturbed").made == 3
    assert files(tmp_path / "undisturbed") == undisturbed


@pytest.mark.parametrize(
    "fault", ["file-staged@5", "tar-written@2", "tar-renamed@2", "record-written@3", "committed@2"]
)
def test_a_check_that_the_disk_refused_goes_on(
    config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_counts", Counter())
    monkeypatch.setenv(faults.VARIABLE, f"{fault}=ENOSPC")
    out = tmp_path / "out"
    if fault.startswith("file"):  # a lease
        check(config, out)
    else:
        with pytest.raises(RunError, match="No space left on device"):
            check(config, out)
        assert not (out / "check.json").exists()
    monkeypatch.delenv(faults.VARIABLE)
    check(config, out)
    assert files(out) == undisturbed


PROGRAM = """
import sys
from pathlib import Path
from prism_fast.config import RunConfig
from tests.prompt_tools.checks import check
check(RunConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
"""


def start(config: RunConfig, out: Path, fault: str = "") -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PRISM_FAST_FAULT": fault, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, config.model_dump_json(), str(out)], env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["tar-renamed@2", "after-record@2"])
def test_a_check_that_was_killed_goes_on(
    config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes], fault: str
) -> None:
    out = tmp_path / "out"
    assert start(config, out, f"{fault}=SIGKILL").wait(60) == -signal.SIGKILL
    assert not (out / "check.json").exists()
    found = check(config, out)
    assert (found.made, found.found) == ((2, 1) if fault.startswith("tar") else (1, 2))
    assert files(out) == undisturbed


@pytest.mark.slow
def test_two_processes_share_the_work(config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    both = [start(config, out), start(config, out)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert files(out) == undisturbed


class Waiting(Believer):
    """Begins when it may."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.begun, self.may = threading.Event(), threading.Event()

    def denoise(self, rows: object) -> None:
        self.begun.set()
        assert self.may.wait(30)


def test_what_another_has_in_hand_is_left_to_it(
    config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out, slow, other = tmp_path / "out", Waiting(config), Believer(config)
    first = threading.Thread(target=check, args=(config, out, slow))
    first.start()
    assert slow.begun.wait(30)
    told = list[int]()

    def progress(done: int, total: int, rate: float) -> None:
        told.append(done)
        if done == 16:  # both classes that are free
            slow.may.set()

    found = check(config, out, other, progress=progress)
    first.join(30)
    assert (found.made, {row.label for row in other.rows}) == (2, {1, 2})
    assert told[-1] == 24
    assert files(out) == undisturbed


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


class Signalled(Believer):
    """Asked to stop in the first batch of the second class."""

    def denoise(self, rows: object) -> None:
        assert isinstance(rows, list | tuple)
        if rows[0].label == 1 and not any(row.label == 1 for row in self.rows):
            os.kill(os.getpid(), signal.SIGTERM)
        super().denoise(rows)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("depth", [0, 2])
def test_a_signal_stops_after_the_class_in_hand(
    config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes], depth: int
) -> None:
    out, config = tmp_path / "out", assign(config, {"launch.pipeline_depth": depth})
    with (
        pytest.raises(StoppedError, match="stopped by SIGTERM; what is finished is kept") as caught,
        stoppable() as stop,
    ):
        check(config, out, Signalled(config), stop=stop)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert {path.name for path in (out / "classes").iterdir()} >= {"000000.json", "000001.json"}
    assert not list((out / "classes").glob("*.lease"))
    check(config, out)
    assert files(out) == undisturbed


class Rival(Believer):
    """Another check of other settings is done while this one makes its last class."""

    def __init__(self, config: RunConfig, out: Path) -> None:
        super().__init__(config)
        self.out = out

    def denoise(self, rows: object) -> None:
        assert isinstance(rows, list | tuple)
        if rows[0].label == 2 and self.out.exists():
            other, self.out = self.out, Path("nowhere")
            check(assign(self.config, {"seed": 5}), other, classes=["cat"])
        super().denoise(rows)


def test_a_check_of_other_settings_at_the_same_time_is_said(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"class 'cat' in .* was replaced by a check with other prompts or settings"):
        check(config, tmp_path / "out", Rival(config, tmp_path / "out"))
