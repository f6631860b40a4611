from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from prism_engines import gate as gate_module
from prism_engines.backends import backend
from prism_engines.backends.inductor import InductorBackend
from prism_engines.backends.openvino import OpenVinoBackend
from prism_engines.backends.tensorrt import TensorRtBackend
from prism_engines.errors import EngineBuildError, EngineError, EngineInputError, GateError
from prism_engines.gate import GRADIENT_THRESHOLDS, THRESHOLDS, Threshold
from prism_engines.graph import Graph
from prism_engines.lowerings import LOWERINGS
from prism_engines.record import EngineRecord
from prism_engines.spec import Precision
from prism_engines.store import Store
from torch import nn

from prism_fast.compile.build import Builder, OnHost, Probes, Refused, summarise
from prism_fast.compile.command import build_all
from prism_fast.compile.parts import Part, Parts
from prism_fast.config import load_config
from prism_fast.models.classifier import Classifier
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.compile.conftest import NAMES, Shelf, contents, one_line, unharmed


def builder(parts: Parts, store: Store, log: Callable[[str], None] = lambda line: None) -> Builder:
    return Builder(parts, store, log)


@pytest.mark.parametrize("name", NAMES)
def test_every_part_passes_the_gate(warm: Path, parts: Parts, name: str) -> None:
    found = [r for r in Store(warm).records() if r.key.part == name]
    assert [r.key.backend for r in found] == ["onnxruntime", "openvino"]
    for record in found:
        limit = (GRADIENT_THRESHOLDS if name == "energy_gradient" else THRESHOLDS)["fp32"]
        line = summarise(record, parts)
        assert (line.part, line.precision, line.key, line.gated_through) == (name, "fp32", record.digest, line.backend)
        assert line.rel_error <= limit.rel_error
        assert line.cosine >= limit.cosine
        assert line.speedup_vs_eager is not None
        assert line.speedup_vs_eager > 0
        files = [f for f in (warm / line.key).iterdir() if f.name != "engine.json"]
        assert line.size_bytes == sum(f.stat().st_size for f in files)
    assert Store(warm).verify() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_second_call_builds_nothing(
    warm: Path, parts: Parts, name: str, builds: list[str], without_inductor: None
) -> None:
    before, said = contents(warm), list[str]()
    again = builder(parts, Store(warm), said.append)
    found = [r for r in again.build(name, "auto", "fp32") if isinstance(r, EngineRecord)]
    assert [r.key.backend for r in found] == ["openvino", "onnxruntime"]
    assert list(again.build(name, "openvino", "fp32")) == found[:1]
    assert (builds, said) == ([], [])
    unharmed(Store(warm), before)


def test_breaking_even_counts_the_calls_of_an_image(warm: Path, parts: Parts) -> None:
    record = next(r for r in Store(warm).records() if r.key.part == "unet")
    faster = replace(record, build_s=60.0, gate={**record.gate, "eager_s": 0.5, "engine_s": 0.2})
    assert summarise(faster, parts).break_even_images == 200  # 0.3 s a call, four calls for four images
    slower = replace(record, build_s=60.0, gate={**record.gate, "eager_s": 0.2, "engine_s": 0.5})
    assert summarise(slower, parts).break_even_images is None


@pytest.fixture(scope="module")
def broken(run: Synthesizer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Parts, Graph]:
    """An energy gradient whose convolutions' derivatives are a tenth too large."""
    original = torch.ops.aten.convolution_backward.default

    def scaled(*arguments: Any) -> Any:
        return tuple(x if x is None else 1.1 * x for x in LOWERINGS[original](*arguments))

    torch.manual_seed(0)  # a teacher of two convolutions: it exports in a moment
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 14**2, 3))
    teacher = Classifier(net.eval().requires_grad_(False), run.teacher.config)
    small = Synthesizer(run.config, run.model, teacher, run.hashes)
    parts = Parts(small, lowerings={**LOWERINGS, original: scaled})
    return parts, parts.get("energy_gradient").make_graph(tmp_path_factory.mktemp("broken"))


def test_a_wrong_derivative_fails_the_gate(broken: tuple[Parts, Graph], shelf: Shelf, builds: list[str]) -> None:
    parts, graph = broken
    store, part = shelf(part="decoder"), parts.get("energy_gradient")
    before = contents(store.root)
    with pytest.raises(GateError) as caught:
        builder(parts, store).one(part, graph, backend("openvino"), "fp32", Probes(parts.synthesizer, part))
    said = one_line(caught.value)
    assert said.startswith("energy_gradient (fp32): output gradient has relative error ")
    assert "(at most 0.005), cosine " in said
    assert said.endswith("nothing was stored")
    assert float(said.split("relative error ")[1].split()[0]) > 0.1
    assert builds == ["openvino"]
    unharmed(store, before)


def test_auto_collects_what_fails(
    broken: tuple[Parts, Graph], shelf: Shelf, without_inductor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, graph = broken
    monkeypatch.setattr(Part, "make_graph", lambda self, scratch: graph)
    store = shelf(part="decoder")
    before = contents(store.root)
    found = list(builder(parts, store).build("energy_gradient", "auto", "fp32"))
    assert [type(one) for one in found] == [Refused, Refused]
    assert [one.backend for one in found if isinstance(one, Refused)] == ["openvino", "onnxruntime"]
    assert all("relative error" in one.reason for one in found if isinstance(one, Refused))
    unharmed(store, before)


def test_a_precision_that_fails_gives_way_and_is_not_tried_again(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[str]
) -> None:
    monkeypatch.setitem(gate_module.THRESHOLDS, "bf16", Threshold(0.0, 1.0))
    monkeypatch.setattr("prism_engines.backends.openvino._bf16_reasons", lambda spec: [])
    said: list[str] = []
    made = builder(parts, Store(tmp_path / "store"), said.append)
    (record,) = made.build("decoder", "openvino", None)
    assert isinstance(record, EngineRecord)
    assert (record.key.precision, record.gate["instead_of"]) == ("fp32", "bf16")
    assert said[0] == "decoder: building with openvino in bf16"
    assert "openvino in bf16: decoder (bf16): output images has relative error" in said[1]
    assert builds == ["openvino"] * 2
    assert list(made.build("decoder", "openvino", None)) == [record]
    assert builds == ["openvino"] * 2
    with pytest.raises(GateError):
        list(made.build("decoder", "openvino", "bf16"))


def test_a_named_backend_that_cannot_says_every_reason(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorRtBackend, "_missing", lambda self: ["tensorrt is not installed"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for precision in ("fp32", None):
        with pytest.raises(EngineInputError) as caught:
            list(builder(parts, Store(tmp_path / "store")).build("decoder", "tensorrt", precision))
        said = one_line(caught.value)
        assert said.startswith("tensorrt cannot build decoder here: tensorrt is not installed; ")
        assert said.count("torch sees no CUDA GPU") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("name", "precision", "reason"),
    [
        ("openvino", "fp16", "openvino does not build fp16; choose fp32 or bf16"),
        ("onnxruntime", "bf16", "onnxruntime does not build bf16; choose fp32 or fp16"),
    ],
)
def test_a_precision_that_a_backend_lacks(
    parts: Parts, tmp_path: Path, name: str, precision: Precision, reason: str
) -> None:
    with pytest.raises(EngineInputError, match=f"{name} cannot build decoder here: {reason}"):
        list(builder(parts, Store(tmp_path / "store")).build("decoder", name, precision))


def test_no_backend_at_all(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openvino", "inductor", "onnxruntime", "tensorrt"):
        cls = type(backend(name))
        monkeypatch.setattr(cls, "reasons", lambda self, spec: [f"no {self.name}"])
    for name in ("auto", "all"):
        with pytest.raises(EngineInputError) as caught:
            list(builder(parts, Store(tmp_path / "store")).build("decoder", name, None))
        assert one_line(caught.value) == "; ".join(
            f"{b}: no {b}" for b in ("openvino", "inductor", "onnxruntime", "tensorrt", "tensorrt_rtx")
        )


def test_an_unknown_backend(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(EngineInputError, match="backend 'tvm' is unknown, expected one of: openvino"):
        list(builder(parts, Store(tmp_path / "store")).build("decoder", "tvm", None))


def test_what_cannot_run_here_is_judged_by_its_graph(
    parts: Parts, shelf: Shelf, builds: list[str], without_inductor: None
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    store = shelf(part="decoder")
    if not backend("tensorrt_rtx").run_reasons(parts.get("decoder").spec):
        pytest.skip("TensorRT-RTX runs here")
    found = [r for r in builder(parts, store).build("decoder", "all", "fp32") if isinstance(r, EngineRecord)]
    assert [r.key.backend for r in found] == ["openvino", "onnxruntime", "tensorrt_rtx"]
    assert builds[0] == "tensorrt_rtx"
    line = summarise(found[-1], parts)
    assert (line.speedup_vs_eager, line.break_even_images) == (None, None)
    assert line.gated_through == "onnxruntime, the fp32 graph"
    assert line.rel_error <= THRESHOLDS["fp32"].rel_error
    assert store.verify() == []


def test_a_judge_that_is_missing_is_a_reason(parts: Parts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(TensorRtBackend, "reasons", lambda self, spec: [])
    monkeypatch.setattr(TensorRtBackend, "run_reasons", lambda self, spec: ["no GPU"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        EngineInputError, match=r"tensorrt_rtx cannot build decoder here: .*onnxruntime is not installed"
    ):
        list(builder(parts, Store(tmp_path / "store")).build("decoder", "tensorrt_rtx", "fp32"))


FAILURES = {
    "memory": (MemoryError(), "openvino cannot build decoder: out of memory; choose a smaller engines.decoder_batch"),
    "gpu": (torch.OutOfMemoryError("CUDA out of memory"), "out of memory; choose a smaller engines.decoder_batch"),
    "words": (RuntimeError("Error Code 2: OutOfMemory"), "out of memory; choose a smaller engines.decoder_batch"),
    "disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device; stored engines are unharmed"),
}


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: OpenVinoBackend, graph: Graph, spec: object, folder: Path) -> None:
        (folder / "model.xml").write_text("half of a")
        raise error

    monkeypatch.setattr(OpenVinoBackend, "build", build)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_build_that_runs_out(
    parts: Parts, shelf: Shelf, failure: str, monkeypatch: pytest.MonkeyPatch, without_inductor: None
) -> None:
    error, reason = FAILURES[failure]
    fails_with(error, monkeypatch)
    store = shelf(part="decoder", backend="onnxruntime")
    before = contents(store.root)
    with pytest.raises(EngineError) as caught:
        list(builder(parts, store).build("decoder", "openvino", "fp32"))
    assert reason in one_line(caught.value)
    unharmed(store, before)

    refused, record = builder(parts, store).build("decoder", "auto", "fp32")
    assert isinstance(refused, Refused)
    assert reason in refused.reason
    assert isinstance(record, EngineRecord)
    assert record.key.backend == "onnxruntime"
    unharmed(store, before)


def test_an_interrupted_build_leaves_nothing(
    parts: Parts, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    fails_with(KeyboardInterrupt(), monkeypatch)
    store = shelf(part="decoder", backend="onnxruntime")
    before = contents(store.root)
    with pytest.raises(KeyboardInterrupt):
        list(builder(parts, store).build("decoder", "openvino", "fp32"))
    assert list(store.root.glob(".staging/*")) == []
    assert list((tmp_path / "scratch").iterdir()) == []
    unharmed(store, before)


def test_a_library_that_refuses_gives_way_to_the_next_precision(
    parts: Parts, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: OpenVinoBackend, graph: Graph, spec: object, folder: Path) -> None:
        raise EngineBuildError("openvino refuses part decoder: no such kernel")

    monkeypatch.setattr(OpenVinoBackend, "build", build)
    monkeypatch.setattr("prism_engines.backends.openvino._bf16_reasons", lambda spec: [])
    (record,) = builder(parts, shelf(part="decoder")).build("decoder", "openvino", None)
    assert isinstance(record, EngineRecord)
    assert record.key.precision == "fp32"


@pytest.mark.slow
def test_inductor_builds_a_part_of_one_output(parts: Parts, tmp_path: Path) -> None:
    if reasons := InductorBackend().reasons(parts.get("decoder").spec):
        pytest.skip("; ".join(reasons))
    (record,) = builder(parts, Store(tmp_path / "store")).build("decoder", "inductor", "fp32")
    assert isinstance(record, EngineRecord)
    with InductorBackend().open(record.spec, Store(tmp_path / "store").open_files(record)) as engine:
        (latents,) = parts.get("decoder").random(3)
        (images,) = engine.run(latents[:3])
    assert images.shape == (3, 3, 16, 16)
    torch.testing.assert_close(images, parts.synthesizer.decoder(latents[:3]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_engines_of_a_run_in_half_precision_are_those_of_float32(path: Path, warm: Path, dtype: str) -> None:
    """The configuration may say eager: ``build-engines`` makes engines from float32 all the same."""
    for backend_name in ("openvino", "eager"):
        config = load_config(str(path), (f"sampling.dtype={dtype}", f"engines.backend={backend_name}"))
        outcome = build_all(config, "openvino", "fp32", (), warm, lambda line: None)
        assert [one.part for one in outcome.built] == list(NAMES)
        assert {one.key for one in outcome.built} <= {r.digest for r in Store(warm).records()}


def test_a_gradient_that_does_not_fit_names_its_own_batch(
    parts: Parts, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_with(torch.OutOfMemoryError("CUDA out of memory"), monkeypatch)
    with pytest.raises(EngineBuildError, match=r"out of memory; choose a smaller engines\.gradient_batch"):
        list(builder(parts, shelf(part="decoder")).build("energy_gradient", "openvino", "fp32"))


def test_what_is_judged_by_its_graph_is_judged_on_the_host() -> None:
    class Far:
        name = "far"

        def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            assert {x.device.type for x in inputs} == {"meta"}
            return tuple(torch.zeros(x.shape) for x in inputs)

    (out,) = OnHost(Far(), "meta").run(torch.ones(3))  # type: ignore[arg-type]
    assert out.device.type == "cpu"
