"""Every step on the CPU with tiny models: what works passes, what is broken on purpose fails."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import prism_kernels
import pytest
import torch
from prism_kernels import _backend
from torch import Tensor

from prism_fast.data.loader import open_loader
from prism_fast.gpu_check import busy, small
from prism_fast.gpu_check.finding import MOST_LETTERS, Options, failed, one_line, skipped
from prism_fast.gpu_check.memory import Memory
from prism_fast.gpu_check.steps import decode, driver, engines, guided, operators, shards, training
from prism_fast.gpu_check.table import DTYPES, OPERATORS
from prism_fast.workers.maker import ShardMaker
from tests.kernels import conftest as _kernels  # noqa: F401 - imports the kernels before they are interpreted
from tests.tiny import write_config

# --- findings ---------------------------------------------------------------------------------------------------------


def test_a_reason_is_a_finding_and_a_remedy() -> None:
    found = skipped(["no library; install it", "no card; buy one; or rent one", "no library; install it", "no time"])
    assert (found.found, found.remedy) == ("no library; no card; no time", "install it; buy one; or rent one")


def test_a_finding_is_one_line_of_a_readable_length() -> None:
    assert failed("a\n b  c").found == "a b c"
    assert len(one_line("x" * 1000)) == MOST_LETTERS


# --- driver -----------------------------------------------------------------------------------------------------------


def test_the_driver_step_names_torch_and_the_libraries(options: Options) -> None:
    found = driver.check(options)
    assert found.status == "PASS"
    assert found.facts == {"device": "cpu", "driver": "none"}
    assert torch.__version__ in found.found
    assert "tensorrt" in found.found


def test_a_wrong_product_fails(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "cpu", lambda x: x + 1e-3)
    assert driver.check(options).status == "FAIL"


def test_the_driver_is_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver.driver_version() == "unknown"
    write_program(tmp_path / "nvidia-smi", "echo 580.82\necho 580.82")
    assert driver.driver_version() == "580.82"


def write_program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# --- operators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_agree_in_the_interpreter(name: str, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = operators.check(replace(options, case=name))
    assert found.status == "PASS", found


def test_an_operator_that_cannot_run_here_is_skipped(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    found = operators.check(replace(options, case="energy"))
    assert (found.status, found.found) == ("SKIP", "inputs lie on cpu")
    assert "TRITON_INTERPRET" in found.remedy


def _off(error: float) -> Any:
    """The energy, wrong where Triton is asked for."""

    def compute(of: operators.Inputs) -> tuple[Tensor, ...]:
        wrong = error if _backend._active == "triton" else 0.0
        with prism_kernels.use_backend("reference"):
            return tuple(x + wrong for x in prism_kernels.energy(of.normal(4, 9), of.indices(4), -1.0, 1.0, 1.0))

    return compute


@pytest.mark.parametrize(("error", "status"), [(0.0, "PASS"), (1e-3, "FAIL"), (float("nan"), "FAIL")])
def test_an_operator_that_is_wrong_fails(
    error: float, status: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(operators.CASES, "energy", (_off(error), 64))
    assert operators.check(replace(options, case="energy")).status == status


def test_every_gpu_is_asked_the_given_one_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [str(d) for d in operators._devices(Options("cuda:1", ""))] == ["cuda:1", "cuda:0", "cuda:2"]
    assert [str(d) for d in operators._devices(Options("cuda", ""))] == ["cuda", "cuda:1", "cuda:2"]
    assert [str(d) for d in operators._devices(Options("cpu", ""))] == ["cpu"]


# --- guided runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_guided_run_is_near_to_itself(dtype: str, options: Options) -> None:
    found = guided.check(replace(options, case=dtype))
    assert found.status == "PASS", found
    assert "8 images of tiny" in found.found


def test_the_users_models_are_taken_in_the_type_of_his_configuration(options: Options, tmp_path: Path) -> None:
    own = write_config(tmp_path / "own", sampling={"steps": 9, "height": 16, "width": 16, "dtype": "bfloat16"})
    own.write_text(own.read_text().replace("name: tiny", "name: own"))
    mine = replace(options, config=str(own))
    assert "1 images of own" in guided.check(replace(mine, case="bfloat16")).found
    assert "8 images of tiny" in guided.check(replace(mine, case="float32")).found


def _moved(run: guided.Run, by: float, pixels: float, lost: int) -> guided.Run:
    return guided.Run(run.latents * (1 + by), run.pixels + pixels, lost)


@pytest.mark.parametrize(("by", "pixels", "lost"), [(0.1, 0.0, 0), (0.0, 5.0, 0), (0.0, 0.0, 1), (float("nan"), 0, 0)])
def test_a_run_that_differs_or_loses_samples_fails(
    by: float, pixels: float, lost: int, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = guided.Run(torch.ones(8, 4, 8, 8), torch.ones(8, 3, 16, 16), 0)
    runs = iter([_moved(right, by, pixels, lost), right])
    monkeypatch.setattr(guided, "make", lambda config, images: next(runs))
    assert guided.check(replace(options, case="float32")).status == "FAIL"


# --- engines ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_engine_is_built_stored_and_opened_again(options: Options) -> None:
    pytest.importorskip("openvino")
    found = engines.check(replace(options, case="openvino"))
    assert found.status == "PASS", found
    assert found.found.count("two streams differ by") == len(engines.PARTS)
    assert len(list((Path(options.work) / "engines").glob("*/engine.json"))) == len(engines.PARTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_backend_that_cannot_run_here_is_skipped(options: Options) -> None:
    found = engines.check(replace(options, case="tensorrt"))
    assert found.status == "SKIP"
    assert "torch sees no CUDA GPU" in found.found


@pytest.mark.slow
def test_auto_says_what_it_takes(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from prism_engines.backends import backend

    only = {"onnxruntime": backend("onnxruntime")}
    monkeypatch.setattr("prism_fast.compile.build.backends", lambda *cache: only)
    found = engines.check(replace(options, case="auto"))
    assert found.status == "PASS", found
    assert "unet: onnxruntime fp32" in found.found
    monkeypatch.setattr("prism_fast.compile.build.backends", lambda *cache: {})
    assert engines.check(replace(options, case="auto")).status == "SKIP"


class Shared:
    """An engine whose runs all write into one place."""

    name = "shared"

    def __init__(self, alone: bool) -> None:
        self.place, self.alone = torch.zeros(3, 4), alone

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        place = torch.zeros(3, 4) if self.alone else self.place
        place.copy_(inputs[0])
        time.sleep(0.002)
        return (place,)


@pytest.mark.parametrize("alone", [True, False])
def test_an_engine_whose_runs_disturb_each_other_is_seen(alone: bool) -> None:
    engine: Any = Shared(alone)
    difference = engines.beside_itself(engine, [(torch.ones(3, 4),), (torch.full((3, 4), 2.0),)], "cpu")
    assert (difference <= engines.SAME) == alone


# --- decoding ---------------------------------------------------------------------------------------------------------


def test_dali_decodes_as_pillow_does(options: Options) -> None:
    pytest.importorskip("nvidia.dali")
    found = decode.check(options)
    assert found.status == "PASS", found


def test_a_decoder_that_is_wrong_fails(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.dali")

    def open_wrong(shards: Any, config: Any, device: Any, mean: Any, std: Any) -> Any:
        return open_loader(shards, config, device, (0.52, 0.4, 0.3), std)

    monkeypatch.setattr(decode, "open_loader", open_wrong)
    found = decode.check(options)
    assert found.status == "FAIL"
    assert "png differs by" in found.found


def test_drawn_pictures_differ_and_know_their_index(options: Options, tmp_path: Path) -> None:
    from prism_fast.dataset.shard_set import ShardSet

    small.draw_run(options, tmp_path / "run", 16, "png")
    samples = list(ShardSet.discover(tmp_path / "run").samples())
    assert [small.index_of(sample.logits) for sample in samples] == list(range(16))
    assert len({sample.image.numpy().tobytes() for sample in samples}) == 16


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_trainer_trains(options: Options) -> None:
    found = training.check(options)
    assert found.status == "PASS", found
    assert "20 steps of test_resnet" in found.found


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (RuntimeError(training.WAITED), "waits for the GPU: RuntimeError: called a synchronizing CUDA operation"),
        ([1.0, float("nan")], "loss 1 to nan"),
    ],
)
def test_a_trainer_that_waits_or_diverges_fails(
    answer: Any, words: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(trainer: Any) -> list[float]:
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    monkeypatch.setattr(training, "train", train)
    found = training.check(options)
    assert found.status == "FAIL"
    assert words in found.found


def test_waiting_is_an_error_inside_and_what_it_was_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[Any] = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with training.no_waiting(torch.device("cpu")):
        assert modes == [0]
    with training.no_waiting(torch.device("cuda")):
        assert modes == [0, "error"]
    assert modes == [0, "error", 0]


# --- shards -----------------------------------------------------------------------------------------------------------


def test_two_shards_are_the_same_with_and_without_overlap(options: Options) -> None:
    found = shards.check(options)
    assert found.status == "PASS", found
    assert "the same bytes; tiny: plain" in found.found
    assert "GPU busy not known" in found.found
    assert "planned" in found.found


def test_two_shards_of_the_users_configuration(options: Options, tmp_path: Path) -> None:
    own = write_config(tmp_path / "own", guidance={"mode": "latent"})
    own.write_text(own.read_text().replace("name: tiny", "name: own"))
    found = shards.check(replace(options, config=str(own)))
    assert found.status == "PASS", found
    assert "the same bytes; own: plain" in found.found
    assert "not planned (guidance.mode is latent" in found.found


def test_shards_that_differ_fail(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shards.make

    def make(config: Any, out: Path, store: Path | None) -> shards.Timing:
        made = real(config, out, store)
        if out.name == "overlapped":
            (out / "shards" / "000001.tar").write_bytes(b"other")
            (out / "shards" / "000000.idx").unlink()
        return made

    monkeypatch.setattr(shards, "make", make)
    found = shards.check(options)
    assert found.status == "FAIL"
    assert found.found.startswith("000000.idx, 000001.tar differ")


@pytest.mark.parametrize(
    ("device", "gigabytes", "near"), [("cuda:0", 0.5, True), ("cuda:0", 5, False), ("cpu", 5, True)]
)
def test_memory_far_beyond_the_plan_is_seen_on_a_gpu(
    device: str, gigabytes: float, near: bool, options: Options
) -> None:
    made = shards.Timing(1.0, 0.1, 0.9, int(gigabytes * 1e9))
    words, found = shards._memory(shards._config(options), made, replace(options, device=device))
    assert found == near
    assert words.startswith(f"peak {gigabytes:.3g} GB")


def test_the_writer_is_timed(options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ShardMaker.store

    def store(self: Any, item: Any) -> Any:
        time.sleep(0.2)
        return real(self, item)

    config = shards._config(options)
    fast = shards.make(config, tmp_path / "fast", None).writer
    monkeypatch.setattr(ShardMaker, "store", store)
    assert 0 < fast < shards.make(config, tmp_path / "slow", None).writer < 1


def test_memory_of_a_process_is_some() -> None:
    assert Memory(torch.device("cpu")).peak_bytes() > 10 * 2**20


def test_memory_of_a_gpu_is_torchs_peak_and_what_came_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"free": 900, "reserved": 50}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (state["free"], 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: state["reserved"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    memory = Memory(torch.device("cuda"))
    state |= {"free": 400, "reserved": 350}
    assert memory.peak_bytes() == 300 + (600 - 350) - (100 - 50)


def test_how_busy_a_gpu_is_is_the_mean_of_whole_lines(tmp_path: Path) -> None:
    assert busy.mean_share("10\n50\n[N/A]\n") == 0.3
    assert busy.mean_share("") is None
    program = write_program(tmp_path / "smi", 'echo "$@" > "$0.asked"\nwhile :; do echo 40; sleep 0.01; done')
    with busy.watching(torch.device("cpu"), str(program)) as seen:
        time.sleep(0.5)
    assert seen.share == 0.4
    assert "--query-gpu=utilization.gpu" in (tmp_path / "smi.asked").read_text()
