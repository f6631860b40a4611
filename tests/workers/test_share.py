"""Workers of one machine share its cores and GPUs, and know which of how many they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.stub import Stub
from prism_fast.compile.tune import Trial, tune
from prism_fast.config import RunConfig, assign
from prism_fast.errors import InputError
from prism_fast.workers.launch import Job, start
from prism_fast.workers.rank import Rank
from prism_fast.workers.share import cores_of, gpu_of, see_own_gpu, with_own_gpu

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
FAILS = "import sys; sys.exit('error: first line\\nerror: no room')"


@pytest.mark.parametrize(
    "text", ["", "2", "0/3", "4/3", "1/0", "a/b", "1/2/3", "-1/2", " 1/2", "١/٢", "1/²", "1" * 5000 + "/2"]
)
def test_a_place_is_i_of_n(text: str) -> None:
    with pytest.raises(InputError, match=r"is not i/N with 1 <= i <= N, for example 2/8"):
        Rank.parse(text)


def test_workers_begin_at_different_shards_and_miss_none() -> None:
    shards = [3, 5, 6, 9, 10, 11, 20]
    orders = [Rank.parse(f"{n}/3").order(shards) for n in (1, 2, 3)]
    assert [order[0] for order in orders] == [3, 6, 10]
    assert all(sorted(order) == shards for order in orders)
    assert Rank(8, 8).order([4]) == [4]
    assert Rank(2, 3).order([]) == []


def test_cores_are_shared_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7, 8})
    assert [cores_of(n, 2) for n in (0, 1)] == [{2, 3}, {5, 7}]
    assert [cores_of(n, 6) for n in (0, 5)] == [{2, 3, 5, 7, 8}] * 2


def test_gpus_are_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [gpu_of(n, "cuda")["CUDA_VISIBLE_DEVICES"] for n in (0, 1, 2)] == ["4", "6", "4"]
    assert gpu_of(0, "cpu") == {}


@pytest.mark.parametrize("visible", [None, "4,5,6"])
def test_the_first_worker_gets_the_gpu_that_is_named(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    """Those after it the next ones; what is seen already is counted from 0, as CUDA does."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    gpus = visible.split(",") if visible else ["0", "1", "2"]
    assert gpu_of(0, "cuda:1") == {"CUDA_VISIBLE_DEVICES": gpus[1]}
    assert [gpu_of(n, "cuda:2")["CUDA_VISIBLE_DEVICES"] for n in range(4)] == [gpus[2], *gpus]
    with pytest.raises(InputError, match="cuda:3, but there are 3 GPUs, counted from 0; name another"):
        gpu_of(0, "cuda:3")


def test_a_rank_of_torchrun_sees_its_gpu(monkeypatch: pytest.MonkeyPatch, stubbed: RunConfig) -> None:
    for name, value in {"CUDA_VISIBLE_DEVICES": "4,6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert see_own_gpu(assign(stubbed, {"sampling.device": "cuda:1"})).sampling.device == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
    assert see_own_gpu(stubbed) is stubbed


def test_a_worker_with_a_gpu_of_its_own_knows_it_as_the_first(stubbed: RunConfig, tmp_path: Path) -> None:
    """Whatever launches it; the run is the same."""
    config = assign(stubbed, {"sampling.device": "cuda:1"})
    elsewhere = Job(config, tmp_path / "run").elsewhere().config  # what ray and Slurm are given
    assert elsewhere.sampling.device == "cuda"
    assert elsewhere.run_hash() == config.run_hash()
    assert with_own_gpu(stubbed) is stubbed


RANK_ONE = """
import os, sys, torch
from prism_fast import load_config, synthesize

def seen(name, answer):
    def call(*args):
        print(name, os.environ.get("CUDA_VISIBLE_DEVICES"), *args, torch.cuda.is_initialized())
        return answer
    return call

torch.cuda.device_count = seen("device_count", 2)  # by the driver's management library: initialises nothing
for name in ("is_available", "get_device_name", "current_device", "_lazy_init", "init"):
    setattr(torch.cuda, name, seen(name, False))
torch._C._cuda_getDeviceCount = seen("_cuda_getDeviceCount", 2)
try:
    synthesize(load_config(sys.argv[1], ["sampling.batch_size=auto", "sampling.device=cuda"]), sys.argv[2],
               launch="torchrun")
except Exception as error:
    print("then", error)
"""


def test_torchruns_ranks_see_their_gpu_before_cuda_is_called(config: RunConfig, tmp_path: Path) -> None:
    """CUDA takes what is visible from the environment at its first call; ``auto`` asks it for the GPU's name."""
    document = tmp_path / "config.yaml"
    document.write_text(config.model_dump_json())  # JSON is YAML
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    environment |= {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "PRISM_FAST_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-c", RANK_ONE, document, tmp_path / "run"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )
    first, *others = done.stdout.splitlines()
    assert first == "device_count None False"
    assert "get_device_name 1 cuda False" in others
    assert {line.split()[1] for line in others[:-1]} == {"1"}
    assert others[-1].startswith("then sampling.batch_size is auto, but tiny was not tuned on")


def test_a_rank_on_the_cpu_finds_what_was_tuned_on_all_cores(
    stubbed: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it takes its part of them: what is tuned is kept for their number."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    tune(stubbed, tmp_path / "store", 1, print, lambda config, store: Trial(1, 1.0, 1))
    shared: list[set[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: shared.append(cores))
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    auto = assign(stubbed, {"sampling.batch_size": "auto"})
    job = Job(auto, tmp_path / "run", store=tmp_path / "store", generator=Stub(stubbed))
    assert start("torchrun", job).images == 7
    assert shared == [{2, 3}]
