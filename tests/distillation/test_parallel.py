"""Two ranks on the CPU, by gloo: the losses of one rank with the same batches, and the same whatever is killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prism_fast.config import load_config
from prism_fast.distillation.parallel import World, joined
from prism_fast.errors import InputError
from prism_fast.workers.launch import training
from prism_fast.workers.launch.training import Training
from tests.data.toy import write_run
from tests.distillation.ranks import finish, start
from tests.tiny import write_config

RECIPE = {
    "student": "test_vit", "image_size": 32, "batch_size": 8, "steps": 12, "warmup_steps": 2, "lr": 1e-3,
    "checkpoint_every": 3, "ema_decay": 0.5, "loader": "torch",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", classes=3)


def config_file(folder: Path, **changes: object) -> Path:
    return write_config(folder, distill={**RECIPE, **changes})


def command(config: Path, run: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "prism_fast", "distill", str(config), "--run", str(run), "--out", str(out), *more]


def history(out: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((out / "student" / "history.json").read_text())
    return rows


def test_two_ranks_have_the_losses_of_one(run: Path, tmp_path: Path) -> None:
    """Of a student whose samples do not see each other, with what is drawn for pictures and pairs."""
    recipe = {**RECIPE, "augment": {"mixup": 0.5, "erasing": 0.5}}
    finish(start(1, run, tmp_path / "one", recipe))
    finish(start(2, run, tmp_path / "two", recipe))
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [3, 6, 9, 10, 12]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=1e-5)
    weights = [load_file(tmp_path / name / "student" / "model.safetensors") for name in ("one", "two")]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_killed_ten_times_the_weights_are_the_same(run: Path, tmp_path: Path) -> None:
    recipe, out = {**RECIPE, "steps": 60, "checkpoint_every": 2}, tmp_path / "killed"
    finish(start(2, run, tmp_path / "whole", recipe))
    draw, checkpoint = random.Random(0), out / "checkpoint.pt"
    for _ in range(10):
        processes, before = start(2, run, out, recipe), _written(checkpoint)
        give_up = time.monotonic() + 60
        while _written(checkpoint) == before and processes[0].is_alive() and time.monotonic() < give_up:
            time.sleep(0.005)
        time.sleep(draw.random() * 0.05)
        for process in draw.sample(processes, 2):
            process.kill()
        for process in processes:
            process.join()
    finish(start(2, run, out, recipe))
    assert history(out) == history(tmp_path / "whole")
    files = [folder / "student" / "model.safetensors" for folder in (out, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_it_goes_on_with_another_number_of_ranks(run: Path, tmp_path: Path) -> None:
    """And gives the losses of a run whose ranks never changed."""
    finish(start(1, run, tmp_path / "whole", RECIPE))
    out = tmp_path / "parts"
    processes = start(2, run, out, RECIPE)
    while not (out / "checkpoint.pt").exists() and processes[0].is_alive():
        time.sleep(0.005)
    for process in processes:
        process.kill()
        process.join()
    finish(start(1, run, out, RECIPE))
    whole, parts = history(tmp_path / "whole"), history(out)
    assert [row["loss"] for row in parts] == pytest.approx([row["loss"] for row in whole], abs=1e-5)


@pytest.mark.slow
def test_the_command_starts_its_own_ranks(run: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(config_file(tmp_path), run, tmp_path / "out", "--launch", "local", "--workers", "2", "--json"),
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 12
    assert "2 ranks: batches of 8, 4 a rank" in done.stderr or "student: loss" in done.stderr


@pytest.mark.slow
def test_what_a_rank_refuses_is_one_line(run: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, batch_size=7)
    done = subprocess.run(
        command(config, run, tmp_path / "out", "--launch", "local", "--workers", "2"),
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=180,
    )  # fmt: skip
    assert done.returncode == InputError.exit_code
    assert done.stderr.strip().splitlines()[-1].startswith("error: rank ")
    assert "Traceback" not in done.stderr


def test_without_torchrun_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="LOCAL_RANK is not set; start 'torchrun"), joined("cpu"):
        pass


def test_synchronised_statistics_need_gpus() -> None:
    with pytest.raises(InputError, match=r"sync_batch_norm needs GPUs"):
        World(torch.device("cpu"), 0, 2).share(torch.nn.Linear(2, 2), sync_batch_norm=True)


def test_a_slurm_job_is_cut_into_whole_nodes(tmp_path: Path) -> None:
    settings = load_config(config_file(tmp_path))
    job = Training(settings, tmp_path / "run", tmp_path / "out", "cuda", ranks=16)
    found = training._parameters(job)
    assert (found["nodes"], found["tasks_per_node"], found["gpus_per_node"]) == (2, 8, 8)
    with pytest.raises(InputError, match=r"12 is no multiple of launch\.slurm\.ranks_per_node 8"):
        training._parameters(Training(settings, tmp_path, tmp_path, "cuda", ranks=12))
