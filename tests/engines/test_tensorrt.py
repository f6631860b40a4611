"""TensorRT: engines are really built without a GPU; they are run only where there is one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prism_engines.backends import tensorrt
from prism_engines.backends.tensorrt import TensorRtBackend
from prism_engines.errors import EngineBuildError, EngineInputError
from prism_engines.graph import Graph
from prism_engines.spec import EngineSpec, Precision, TensorSpec
from torch import Tensor, nn

from tests.engines import tiny


class PoolWithIndices(nn.Module):
    """TensorRT's parser takes no max pooling that also returns indices."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
        return values, indices


@pytest.fixture
def rtx() -> TensorRtBackend:
    """TensorRT-RTX, where it can build."""
    backend = TensorRtBackend("tensorrt_rtx")
    if reasons := backend.reasons(tiny.spec()):
        pytest.skip("; ".join(reasons))
    return backend


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_builds_without_a_gpu(rtx: TensorRtBackend, graph: Graph, precision: Precision, tmp_path: Path) -> None:
    spec = tiny.spec(precision)
    rtx.build(graph, spec, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.engine"]
    assert (tmp_path / "model.engine").stat().st_size > 1000


def test_builds_for_named_gpus(rtx: TensorRtBackend, graph: Graph, tmp_path: Path) -> None:
    backend = TensorRtBackend("tensorrt_rtx", compute_capabilities=("SM89", "SM120"))
    assert backend.target() == "SM89+SM120"
    assert rtx.target() == "SM80 and later"
    backend.build(graph, tiny.spec(), tmp_path)
    assert (tmp_path / "model.engine").exists()


def test_an_unknown_gpu_is_refused(rtx: TensorRtBackend, graph: Graph, tmp_path: Path) -> None:
    backend = TensorRtBackend(rtx.name, compute_capabilities=("SM90",))  # type: ignore[arg-type]
    with pytest.raises(EngineInputError, match="compute capability 'SM90' is unknown to TensorRT-RTX, expected: SM"):
        backend.build(graph, tiny.spec(), tmp_path)


@pytest.mark.usefixtures("rtx")
def test_a_network_that_a_gpu_cannot_run_is_refused(graph: Graph, tmp_path: Path) -> None:
    backend = TensorRtBackend("tensorrt_rtx", compute_capabilities=("SM75",))
    with pytest.raises(EngineBuildError, match=r"cannot build part tiny: .*FP32 .*not supported") as caught:
        backend.build(graph, tiny.spec(), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_parser_names_the_node(rtx: TensorRtBackend, tmp_path: Path) -> None:
    spec = EngineSpec("bad", (TensorSpec("x", (1, 1, 4, 4)),), ("y", "indices"))
    graph = Graph(spec, lambda _: PoolWithIndices(), (torch.zeros(1, 1, 4, 4),), tmp_path / "scratch")
    with pytest.raises(EngineBuildError, match=r"cannot read part bad: node \S+ \(MaxPool\): ") as caught:
        rtx.build(graph, spec, tmp_path)
    assert "\n" not in str(caught.value)


def test_running_needs_a_gpu(rtx: TensorRtBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert any("torch sees no CUDA GPU" in reason for reason in rtx.run_reasons(tiny.spec()))


@pytest.mark.parametrize(
    ("capability", "built_for", "serves"),
    [
        ((8, 9), (), True),
        ((8, 0), (), False),
        ((12, 0), (), True),
        ((7, 5), (), False),
        ((9, 0), (), False),
        ((8, 9), ("SM120",), False),
        ((7, 5), ("SM75",), True),
    ],
)
def test_gpus_that_an_engine_serves(
    capability: tuple[int, int],
    built_for: tuple[str, ...],
    serves: bool,
    rtx: TensorRtBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    spec = replace(tiny.spec(), device="cuda")
    reasons = TensorRtBackend("tensorrt_rtx", compute_capabilities=built_for).run_reasons(spec)
    assert (reasons == []) is serves
    assert serves or "pip install 'prism-fast[tensorrt]'" in reasons[0]


def test_the_data_centre_library_builds_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reasons = TensorRtBackend("tensorrt").reasons(tiny.spec())
    assert any(reason.startswith("data-centre TensorRT builds on its target GPU only") for reason in reasons)


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX 1.2. Timing cache:DeprecationWarning")
def test_measurements_are_kept_by_library_and_gpu(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT-RTX stands in for its sister, whose builds need a GPU: it is called the same, and measures nothing."""
    trt = pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    backend, built = TensorRtBackend("tensorrt", cache=tmp_path / "store" / "cache"), tmp_path / "built"
    built.mkdir()
    backend.build(graph, tiny.spec(), built)
    (file,) = (tmp_path / "store" / "cache").iterdir()
    assert file.name == f"tensorrt-{trt.__version__}-cuda.timing"
    written = file.read_bytes()
    for given in (written, b"damaged", b""):
        file.write_bytes(given)
        backend.build(graph, tiny.spec(), built)
        assert file.read_bytes() == written
    TensorRtBackend("tensorrt").build(graph, tiny.spec(), built)
    TensorRtBackend("tensorrt_rtx", cache=tmp_path / "none").build(graph, tiny.spec(), built)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("fault", ["unreadable", "another GPU's"])
def test_measurements_that_do_not_fit_are_made_anew(fault: str, tmp_path: Path) -> None:
    class Config:
        taken: bytes | None = None

        def create_timing_cache(self, data: bytes) -> bytes | None:
            return None if data and fault == "unreadable" else data

        def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            self.taken = None if cache else cache
            return not cache

    backend, config, trt = TensorRtBackend("tensorrt", cache=tmp_path), Config(), SimpleNamespace(__version__="11.0")
    made = backend._timings(trt, config, "cuda")
    assert made is not None
    made[0].write_bytes(b"of before")
    assert backend._timings(trt, config, "cuda") == (made[0], b"")
    assert config.taken == b""


def test_a_library_that_makes_no_builder_cannot_build(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        Builder = staticmethod(lambda logger: None)
        ILogger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)})

    class Speaking(Silent):
        @staticmethod
        def Builder(logger: Any) -> None:
            logger.log(1, "CUDA initialization failure with error: 35\nand more")

    for fake, said in ((Silent, "'NoneType' object has no"), (Speaking, "CUDA initialization failure with error: 35)")):
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
        tensorrt._builder_problem.cache_clear()
        (reason,) = tensorrt._builder_reasons("tensorrt_rtx")
        tensorrt._builder_problem.cache_clear()
        assert reason.startswith(f"tensorrt_rtx makes no builder ({said}")
        assert reason.endswith("; mend the NVIDIA driver, or run: pip install 'prism-fast[trt]'")


@pytest.mark.gpu
@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
def test_computes_what_eager_computes_on_a_gpu(module: str, graph: Graph, tmp_path: Path) -> None:
    backend = TensorRtBackend(module)  # type: ignore[arg-type]
    spec = replace(tiny.spec("fp16"), device="cuda")
    if reasons := [*backend.reasons(spec), *backend.run_reasons(spec)]:
        pytest.skip("; ".join(reasons))
    backend.build(graph, spec, tmp_path)
    inputs = tiny.batch(7)
    with backend.open(spec, tmp_path) as engine:
        outputs = engine.run(*(x.cuda() for x in inputs))
    for got, want in zip(outputs, tiny.net()(*inputs), strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=0, atol=0.01)
