from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stub import Stub, stub_config
from prism_fast.config import RunConfig, assign
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import StoppedError
from prism_fast.operations.verify import verify
from prism_fast.prompts.row import PlanRow
from prism_fast.synthesis.synthesizer import Synthesizer
from prism_fast.workers import synthesize as unstubbed
from prism_fast.workers.stop import SIGNALS, stoppable
from tests.stubbed import synthesize

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


class Signalled(Stub):
    """A signal comes while the batch that begins with row ``index`` is denoised; ``begun`` is what was denoised."""

    def __init__(self, config: RunConfig, index: int, number: signal.Signals) -> None:
        super().__init__(config)
        self.index, self.number, self.begun = index, number, list[int]()

    def denoise(self, rows: Sequence[PlanRow]) -> None:
        self.begun.append(rows[0].index)
        if rows[0].index == self.index:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_between_shards_or_batches(
    stubbed: RunConfig, tmp_path: Path, number: signal.Signals, depth: int
) -> None:
    """Shards of two batches of one; the signal comes at the first batch of the second shard."""
    config, out = assign(stubbed, {"launch.pipeline_depth": depth}), tmp_path / "run"
    generator = Signalled(config, 2, number)
    with (
        pytest.raises(StoppedError, match=f"stopped by {number.name}; what is finished is kept") as caught,
        stoppable() as s,
    ):
        synthesize(config, out, generator=generator, stop=s)
    assert caught.value.exit_code == 128 + number
    done = sorted(RunDirectory(out).done())
    if depth == 0:
        assert (done, generator.begun) == (([0, 1], [0, 1, 2, 3]) if number in WARNINGS else ([0], [0, 1, 2]))
    else:  # a few batches ahead were begun when it came
        assert done[: 1 + (number in WARNINGS)] == [0, 1][: 1 + (number in WARNINGS)]
        assert len(done) < 4
    assert [p.name for p in out.rglob("*") if p.suffix == ".lease" or ".tmp-" in p.name] == []
    assert synthesize(config, out).images == 7
    assert verify(out).problems == ()


def test_while_loading_a_signal_strikes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(config: Any) -> Stub:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    monkeypatch.setattr(Synthesizer, "load", load)
    with pytest.raises(StoppedError), stoppable() as stop:
        unstubbed.synthesize(stub_config(tmp_path), tmp_path / "run", stop=stop)
    assert not (tmp_path / "run").exists()


def test_a_second_signal_ends_the_process() -> None:
    program = (
        "import os, signal\nfrom prism_fast.workers.stop import stoppable\n"
        "with stoppable() as stop, stop.patient():\n"
        " os.kill(os.getpid(), signal.SIGUSR1); assert stop.asked; os.kill(os.getpid(), signal.SIGTERM); print('alive')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "")


def test_it_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(StoppedError(signal.SIGHUP)))
    assert (str(error), error.exit_code) == (str(StoppedError(signal.SIGHUP)), 129)
