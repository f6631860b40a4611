"""Every backend that runs here computes what eager computes; every other one says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from prism_engines.backends import backend, backends, inductor, onnxruntime
from prism_engines.backends.base import Backend
from prism_engines.backends.inductor import compiler_reasons
from prism_engines.backends.padded import PaddedEngine
from prism_engines.backends.reasons import cuda_reasons
from prism_engines.base import Engine
from prism_engines.errors import EngineBuildError, EngineInputError
from prism_engines.graph import Graph
from prism_engines.spec import EngineSpec, Precision, TensorSpec
from torch import Tensor, nn

from tests.engines import tiny

#: Largest error against eager float32 of outputs near one: eager bfloat16 itself is off by 0.02.
TOLERANCES = {"fp32": 1e-5, "bf16": 0.06, "fp16": 0.01}
CPU_ENGINES: list[tuple[str, Precision]] = [
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("inductor", "fp32"),
    ("inductor", "bf16"),
    ("onnxruntime", "fp32"),
]


class Branches(nn.Module):
    """Control flow that depends on data: only eager torch runs it."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x if x.sum() > 0 else -x,)


@pytest.fixture(scope="module", params=CPU_ENGINES, ids=lambda p: "-".join(p))
def engine(request: pytest.FixtureRequest, graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """One built and opened engine of the tiny network."""
    name, precision = request.param
    spec = tiny.spec(precision)
    if reasons := [*backend(name).reasons(spec), *backend(name).run_reasons(spec)]:
        pytest.skip("; ".join(reasons))
    folder = tmp_path_factory.mktemp(name)
    backend(name).build(graph, spec, folder)
    return backend(name).open(spec, folder)


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_computes_what_eager_computes(engine: PaddedEngine, rows: int) -> None:
    inputs = tiny.batch(rows)
    tolerance = TOLERANCES[engine.spec.precision]
    for got, want in zip(engine.run(*inputs), tiny.net()(*inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


def test_outputs_belong_to_the_caller(engine: PaddedEngine) -> None:
    first = engine.run(*tiny.batch(4, seed=1))
    kept = [x.clone() for x in first]
    engine.run(*tiny.batch(4, seed=2))
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_a_row_does_not_depend_on_its_batch(engine: PaddedEngine) -> None:
    inputs = tiny.batch(4)
    alone = engine.run(*(x[:1] for x in inputs))
    together = engine.run(*inputs)
    for one, all_rows in zip(alone, together, strict=True):
        torch.testing.assert_close(one, all_rows[:1], rtol=0, atol=1e-6)


def test_a_wrong_shape_is_refused(engine: PaddedEngine) -> None:
    with pytest.raises(EngineInputError, match="engine tiny: input x is"):
        engine.run(torch.zeros(4, 3, 6, 5), torch.zeros(4).long())


def test_the_names_are_listed() -> None:
    assert list(backends()) == ["openvino", "inductor", "onnxruntime", "tensorrt", "tensorrt_rtx"]
    with pytest.raises(EngineInputError, match="backend 'tvm' is unknown, expected one of: openvino, inductor"):
        backend("tvm")


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "tensorrt", "tensorrt_rtx"])
def test_a_missing_library_is_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    one = backend(name)
    for reasons in (one.reasons(tiny.spec()), one.run_reasons(tiny.spec())):
        assert any(f"{name} is not installed" in reason and "pip install" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "tensorrt_rtx"])
def test_building_needs_the_exporter_and_running_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    one = backend(name)
    assert any("onnxscript is not installed" in reason for reason in one.reasons(tiny.spec()))
    assert not any("onnxscript" in reason for reason in one.run_reasons(tiny.spec()))


@pytest.mark.parametrize(("name", "precision"), [("openvino", "fp16"), ("onnxruntime", "bf16")])
def test_an_unknown_precision_is_a_reason(name: str, precision: Precision) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    reasons = backend(name).reasons(tiny.spec(precision))
    assert any(f"{name} does not build {precision}; choose" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["inductor", "onnxruntime"])
def test_fp16_needs_a_gpu(name: str) -> None:
    assert any("GPU" in reason for reason in backend(name).reasons(tiny.spec("fp16")))


def test_a_cpu_without_bfloat16_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    assert backend("openvino").reasons(tiny.spec("bf16")) == [
        "this CPU has no bfloat16 arithmetic (AVX512_BF16 or AMX); choose fp32"
    ]
    assert backend("openvino").reasons(tiny.spec("fp32")) == []


def test_a_missing_cpu_device_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    asked = openvino.Core.get_property
    monkeypatch.setattr(openvino.Core, "get_property", lambda core, _, name: asked(core, "TOASTER", name))
    for reasons in (backend("openvino").reasons(tiny.spec()), backend("openvino").run_reasons(tiny.spec())):
        assert reasons == [
            'openvino has no CPU device (Device with "TOASTER" name is not registered in the OpenVINO Runtime); '
            "reinstall it, run: pip install 'prism-fast[cpu]'"
        ]


def test_a_session_that_does_not_open_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    assert backend("onnxruntime").reasons(tiny.spec()) == []
    monkeypatch.setattr(onnxruntime, "IR_VERSION", 1000)
    (reason,) = backend("onnxruntime").reasons(tiny.spec())
    assert reason.startswith("onnxruntime does not open a graph of opset 18 (")
    assert reason.endswith("); run: pip install 'prism-fast[cpu]'")
    assert "1000" in reason
    assert "\n" not in reason


def test_a_missing_or_broken_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler is not on the path; install a C++ compiler" in backend("inductor").reasons(tiny.spec())[0]
    assert backend("inductor").run_reasons(tiny.spec()) == []
    monkeypatch.setenv("CXX", "false")
    assert compiler_reasons()[0].startswith("false fails: no message; install")


def test_a_compiler_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, calls = tmp_path / "compiler", tmp_path / "calls"
    compiler.write_text(f"#!/bin/sh\necho called >> {calls}\necho '1: no such header: omp.h' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    first = compiler_reasons()
    assert "fails: 1: no such header: omp.h; install a C++ compiler with OpenMP" in first[0]
    assert compiler_reasons() == first
    assert calls.read_text() == "called\n"


def test_a_compiler_that_does_not_start_or_end_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_bytes(b"\x7fELF")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert "compiler fails: Exec format error; install" in compiler_reasons()[0]
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setenv("CXX", str(sleeper))
    monkeypatch.setattr(inductor, "COMPILER_TIMEOUT_S", 0.1)
    assert "sleeper fails: it took more than 0.1 s to read two headers; install" in compiler_reasons()[0]


@pytest.mark.parametrize(
    ("cuda", "said"), [(None, "is built without CUDA; install the CUDA build"), ("13.0", "a driver for CUDA 13.0")]
)
def test_a_missing_gpu_is_told_from_a_torch_without_cuda(
    cuda: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    (reason,) = cuda_reasons()
    assert reason.startswith("torch sees no CUDA GPU")
    assert said in reason
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cuda_reasons() == []


@pytest.mark.parametrize("name", list(backends()))
def test_reasons_are_one_line_and_say_what_to_do(name: str) -> None:
    for precision in ("fp32", "bf16", "fp16"):
        spec = tiny.spec(precision)
        reasons = [*backend(name).reasons(spec), *backend(name).run_reasons(spec)]
        assert [reason for reason in reasons if "\n" in reason or ";" not in reason] == []


def test_what_inductor_cannot_compile_is_said_in_one_line(tmp_path: Path) -> None:
    spec = EngineSpec("bad", (TensorSpec("x", (3, 3)),), ("y",))
    graph = Graph(spec, lambda _: Branches(), (torch.eye(3),), tmp_path)
    one: Backend = backend("inductor")
    if reasons := one.reasons(spec):
        pytest.skip("; ".join(reasons))
    with pytest.raises(EngineBuildError, match="inductor cannot compile part bad: ") as caught:
        one.build(graph, spec, tmp_path)
    assert "\n" not in str(caught.value)
