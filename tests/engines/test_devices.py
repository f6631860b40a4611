"""Which backend serves which device, and why not: seen with GPUs that are mocked."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prism_engines.backends import backend, backends, inductor, tensorrt
from prism_engines.backends.inductor import compiler_settings, toolkit_reasons
from prism_engines.backends.onnxruntime import CPU, CUDA, TENSORRT
from prism_engines.backends.tensorrt_engine import FILE, TensorRtEngine
from prism_engines.errors import EngineError
from prism_engines.scratch import ScratchMemory
from prism_engines.spec import EngineSpec, Precision, TensorSpec

from tests.engines import tiny

#: Compute capabilities as data sheets have them.
CARDS = {
    "T4": (7, 5),
    "A100": (8, 0),
    "A10": (8, 6),
    "RTX 3090": (8, 6),
    "L40S": (8, 9),
    "H100": (9, 0),
    "B200": (10, 0),
    "RTX 5090": (12, 0),
}
#: Those that TensorRT-RTX's support matrix lists and its portable engine serves.
RTX = ("A10", "RTX 3090", "L40S", "RTX 5090")
NO_BF16 = "a GPU of compute capability 7.5 has no bfloat16 arithmetic; choose fp16"


def spec(device: str = "cuda", precision: Precision = "bf16") -> EngineSpec:
    return replace(tiny.spec(precision), device=device)


@pytest.fixture
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine with such a GPU, the CUDA toolkit, both TensorRTs and ONNX Runtime's CPU wheel."""
    name: str = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: CARDS[name])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"NVIDIA {name}")
    monkeypatch.setattr(inductor, "toolkit_reasons", list)
    monkeypatch.setattr(inductor, "compiler_reasons", list)
    monkeypatch.setattr(tensorrt.TensorRtBackend, "_missing", lambda self: [])
    monkeypatch.setattr(tensorrt, "_builder_problem", lambda module: "")
    known = SimpleNamespace(**dict.fromkeys(("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")))
    real = importlib.import_module
    fake = {"tensorrt_rtx": SimpleNamespace(ComputeCapability=known)}
    monkeypatch.setattr(importlib, "import_module", lambda one: fake.get(one) or real(one))
    return name


def why_not(name: str, spec: EngineSpec) -> str:
    return "; ".join(dict.fromkeys([*backend(name).reasons(spec), *backend(name).run_reasons(spec)]))


def rtx_does_not_serve(card: str) -> str:
    return (
        f"a TensorRT-RTX engine for SM86, SM89, SM120, SM121 does not serve SM{CARDS[card][0]}{CARDS[card][1]}; choose "
        "tensorrt; on data-centre GPUs run: pip install 'prism-fast[tensorrt]'"
    )


@pytest.mark.parametrize("card", CARDS, indirect=True)
def test_what_each_card_runs_in_bf16(card: str) -> None:
    old = card == "T4"
    wanted = {
        "openvino": "openvino runs on the CPU only, this run is on cuda; choose tensorrt or inductor",
        "inductor": NO_BF16 if old else "",
        "onnxruntime": "onnxruntime does not build bf16; choose fp32 or fp16; this onnxruntime has no "
        "CUDAExecutionProvider, this run is on cuda; run: pip uninstall --yes onnxruntime, then pip install "
        "'prism-fast[gpu]'",
        "tensorrt": NO_BF16 if old else "",
        "tensorrt_rtx": NO_BF16 if old else "" if card in RTX else rtx_does_not_serve(card),
    }
    for name in ("openvino", "onnxruntime"):
        pytest.importorskip(name)
    found = {name: "; ".join(one.run_reasons(spec())) for name, one in backends().items()}
    assert _without_the_hosts_own(found) == wanted


@pytest.mark.parametrize("card", CARDS, indirect=True)
def test_what_each_card_runs_in_fp16(card: str) -> None:
    given = spec(precision="fp16")
    assert backend("inductor").run_reasons(given) == backend("tensorrt").run_reasons(given) == []
    assert backend("tensorrt_rtx").run_reasons(given) == ([] if card in RTX else [rtx_does_not_serve(card)])
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    assert [name for name in ("inductor", "tensorrt", "tensorrt_rtx") if backend(name).reasons(given)] == []


@pytest.mark.parametrize("card", CARDS, indirect=True)
def test_onnx_runtimes_gpu_wheel_runs_on_every_card(card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtime, "get_available_providers", lambda: [CUDA, CPU])
    for precision in ("fp32", "fp16"):
        assert backend("onnxruntime").run_reasons(spec(precision=precision)) == []


@pytest.mark.parametrize("card", ["T4", "A100"], indirect=True)
def test_tensorrt_rtx_serves_a_card_that_it_was_told_to_build_for(card: str) -> None:
    built_for = ("SM75",) if card == "T4" else ("SM80",)
    one = tensorrt.TensorRtBackend("tensorrt_rtx", compute_capabilities=built_for)
    assert one.run_reasons(spec(precision="fp16")) == []


def _without_the_hosts_own(found: dict[str, str]) -> dict[str, str]:
    """OpenVINO says, too, what this machine's CPU lacks; that is no matter of the card."""
    return found | {"openvino": "; ".join(found["openvino"].split("; ")[:2])}


@pytest.mark.parametrize("card", ["H100"], indirect=True)
def test_a_run_on_the_cpu_of_a_gpu_host_gets_the_cpus_engines(card: str) -> None:
    pytest.importorskip("openvino")
    assert not any("CPU only" in reason for reason in backend("openvino").run_reasons(spec("cpu", "fp32")))
    for name in ("tensorrt", "tensorrt_rtx"):
        (reason,) = backend(name).run_reasons(spec("cpu"))
        assert reason == f"{name} runs on a GPU only, this run is on cpu; set sampling.device to cuda"
    assert backend("inductor").target("cpu").startswith("cpu ")
    assert backend("inductor").target("cuda:1") == "cuda 9.0 autotuned"
    assert backend("tensorrt").target("cuda:1") == "NVIDIA H100 SM90"
    assert "for a CUDA GPU only, this run is on cpu" in why_not("inductor", spec("cpu", "fp16"))


@pytest.mark.parametrize("name", backends())
def test_without_a_gpu_nothing_runs_on_cuda(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reasons = [*backend(name).reasons(spec()), *backend(name).run_reasons(spec())]
    assert reasons
    assert [r for r in reasons if "\n" in r or ";" not in r] == []
    assert isinstance(backend(name).target("cuda"), str)


@pytest.mark.parametrize("card", ["H100"], indirect=True)
def test_onnx_runtimes_provider_follows_the_device(card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert (backend("onnxruntime").target("cuda"), backend("onnxruntime").target("cpu")) == (CUDA, CPU)
    assert backend("onnxruntime").run_reasons(spec(precision="fp16")) == []
    assert backend("onnxruntime").run_reasons(spec("cpu", "fp16"))


def test_inductor_needs_cudas_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(inductor, "CUDA_FOLDER", tmp_path / "none")
    assert "CUDA_HOME is not set and there is no nvcc); install it and set CUDA_HOME" in toolkit_reasons()[0]
    monkeypatch.setattr(inductor, "CUDA_FOLDER", tmp_path)
    assert f"{tmp_path} holds no include/cuda_fp16.h" in toolkit_reasons()[0]
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_fp16.h").touch()
    assert toolkit_reasons() == []
    monkeypatch.delenv("CUDA_HOME")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(inductor, "CUDA_FOLDER", tmp_path / "none")
    assert toolkit_reasons() == []


def test_the_headers_are_asked_for_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor, "compiler_reasons", list)
    monkeypatch.setattr(inductor, "toolkit_reasons", lambda: ["no toolkit; install it"])
    assert "no toolkit; install it" in backend("inductor").reasons(spec())
    assert backend("inductor").reasons(spec("cpu")) == []


def test_the_device_is_no_part_of_the_inputs() -> None:
    """Keys of engines for the CPU stay what they were; another kind of device is another target."""
    from prism_engines.spec import inputs_json

    assert inputs_json(spec("cuda:1")) == inputs_json(tiny.spec())
    assert EngineSpec("x", (TensorSpec("a", (1,)),), ("b",)).device == "cpu"
    assert (spec("cuda:1").on_cuda, spec("cpu").on_cuda) == (True, False)


class Device:
    """What ``torch.cuda.device`` is told while something runs inside."""

    def __init__(self) -> None:
        self.current: Any = None

    @contextmanager
    def __call__(self, device: Any) -> Iterator[None]:
        before, self.current = self.current, torch.device(device)
        try:
            yield
        finally:
            self.current = before


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", device)
    return device


@pytest.mark.parametrize("context", [object(), None], ids=["loads", "out of memory"])
def test_tensorrt_loads_on_the_runs_own_gpu(context: object, entered: Device, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Engine:
        device_memory_size_v2 = 512

        def create_execution_context(self, strategy: str) -> object:
            seen.append(entered.current)
            return context

    class Logger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)

    def runtime(logger: Any) -> Any:
        logger.log(1, "Error Code 2: OutOfMemory\nand more")
        return SimpleNamespace(deserialize_cuda_engine=lambda data: Engine())

    strategies = SimpleNamespace(USER_MANAGED="by us")
    fake = SimpleNamespace(
        __name__="tensorrt", ILogger=Logger, Runtime=runtime, ExecutionContextAllocationStrategy=strategies
    )
    (tmp_path / FILE).touch()
    engine = TensorRtEngine(fake, spec("cuda:1"), tmp_path, 2, ScratchMemory("cuda:1"))
    if context is None:
        with pytest.raises(EngineError, match=r"gives no context for part tiny: Error Code 2: OutOfMemory$"):
            engine.open()
    else:
        engine.open()
    assert seen == [torch.device("cuda:1")] * 2


def test_inductor_loads_on_the_runs_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def load(path: str, **options: Any) -> Any:
        asked.append(options)
        return SimpleNamespace(get_metadata=lambda: {"AOTI_DEVICE_KEY": "cuda"})

    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(aoti_load_package=load))
    for device in ("cuda:1", "cpu"):
        backend("inductor").open(spec(device), tmp_path)
    assert asked == [{"device_index": 1, "run_single_threaded": True}, {}]


def test_inductor_measures_kernels_on_a_gpu_and_is_on_the_cpu_what_it_was() -> None:
    from torch._inductor import config

    cpu, gpu = compiler_settings(torch.device("cpu")), compiler_settings(torch.device("cuda:1"))
    assert (cpu, gpu) == ({"freezing": True}, {"freezing": False, "max_autotune": True})
    with config.patch(gpu):  # torch refuses a name that it does not know
        assert config.max_autotune


def test_onnx_runtime_loads_on_the_runs_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    asked: list[Any] = []
    first = [CUDA]

    def session(path: str, options: Any, providers: Any) -> Any:
        asked.append(providers)
        return SimpleNamespace(get_providers=lambda: [*first, CPU])

    monkeypatch.setattr(runtime, "InferenceSession", session)
    monkeypatch.setattr(runtime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backend("onnxruntime").open(spec("cuda:1", "fp16"), tmp_path)
    assert asked == [[(CUDA, {"device_id": 1}), CPU]]
    monkeypatch.setattr(runtime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    first.clear()
    first.append(TENSORRT)
    backend("onnxruntime").open(spec("cuda:1", "fp16"), tmp_path)
    kept = str(tmp_path / "cache")
    assert asked[1][0] == (
        TENSORRT,
        {
            "device_id": 1,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": kept,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": kept,
        },
    )
    assert asked[1][1:] == asked[0]
    assert Path(kept).is_dir()
