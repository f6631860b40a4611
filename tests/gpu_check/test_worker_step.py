"""The step that starts a worker a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from prism_fast.gpu_check.finding import Options
from prism_fast.gpu_check.steps import workers

# --- findings ---------------------------------------------------------------------------------------------------------


def test_several_workers_need_several_gpus(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers.check(options).found == "there is no GPU, several workers need more"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert workers.check(replace(options, device="cuda")).found == "there is 1 GPU, several workers need more"


@pytest.mark.slow
def test_two_workers_make_what_one_makes(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = workers.check_workers(options, 2, 0)
    assert found.status == "PASS", found


def test_workers_on_one_gpu_or_none_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10**10, 10**10]
    monkeypatch.setattr(workers, "free_bytes", free.__getitem__)
    monkeypatch.setattr(workers, "shown_gpus", lambda parent: {11: "0", 12: "1"})
    seen = workers.Seen(2)
    seen.look(0, 1, 0.0)
    assert workers._wrong_place(seen, 2) == "no worker took memory of GPU 0"
    free[0] = 0
    seen.look(0, 1, 0.0)
    free[:] = [10**10, 0]
    seen.look(0, 1, 0.0)
    assert workers._wrong_place(seen, 2) == ""
    seen.shown = {11: "0", 12: "0"}
    assert "on GPUs ['0', '0']" in workers._wrong_place(seen, 2)


def test_what_a_worker_was_shown() -> None:
    program = [sys.executable, "-c", "import time; time.sleep(60)"]
    shown = os.environ | {"CUDA_VISIBLE_DEVICES": "5"}
    with (
        subprocess.Popen([*program, "synthesize"], env=shown) as worker,
        subprocess.Popen(program, env=shown) as other,
    ):
        try:
            until = time.monotonic() + 30
            while not (found := workers.shown_gpus(os.getpid())) and time.monotonic() < until:
                time.sleep(0.02)
        finally:
            worker.kill()
            other.kill()
    assert found == {worker.pid: "5"}
