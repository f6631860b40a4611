"""ONNX files: names, static shapes, external weights, nothing of this machine, nothing half written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prism_engines import onnx_export
from prism_engines.errors import EngineBuildError
from prism_engines.onnx_export import export_onnx, onnx_files
from prism_engines.spec import EngineSpec, TensorSpec
from torch import Tensor, nn

from tests.engines import tiny

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")


class Eigenvalues(nn.Module):
    """An operator that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.eigvalsh(x)
        return values


class Branches(nn.Module):
    """Control flow that depends on data."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def shape(value: object) -> list[int]:
    return [d.dim_value for d in value.type.tensor_type.shape.dim]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.graph(tmp_path_factory.mktemp("onnx")).onnx("fp32")


def test_the_format_is_the_one_that_backends_are_asked_for(exported: Path) -> None:
    model = onnx.load(exported)
    assert model.ir_version == onnx_export.IR_VERSION
    assert [one.version for one in model.opset_import] == [onnx_export.OPSET]


def test_names_and_static_shapes_are_those_of_the_spec(exported: Path) -> None:
    graph = onnx.load(exported).graph
    assert {i.name: shape(i) for i in graph.input} == {"x": [tiny.BATCH, 3, 6, 6], "labels": [tiny.BATCH]}
    assert {o.name: shape(o) for o in graph.output} == {"features": [tiny.BATCH, 8, 6, 6], "logits": [tiny.BATCH, 5]}


def test_the_file_says_nothing_of_the_machine(exported: Path) -> None:
    assert b"forward" not in exported.read_bytes()
    assert str(Path(__file__).parent).encode() not in exported.read_bytes()


def test_nothing_else_is_left_behind(exported: Path) -> None:
    assert list(exported.parent.iterdir()) == [exported]


def test_large_weights_go_beside_the_graph(tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "EXTERNAL_ABOVE_BYTES", 1000)
    path = export_onnx(tiny.net(), tiny.batch(tiny.BATCH), tiny.spec(), tmp_path / "model.onnx")
    data = tmp_path / "model.onnx.data"
    assert onnx_files(path) == [path, data]
    inline, external = onnx.load(exported).graph.initializer, onnx.load(path).graph.initializer
    assert [onnx.numpy_helper.to_array(w).tobytes() for w in inline] == [
        onnx.numpy_helper.to_array(w).tobytes() for w in external
    ]


@pytest.mark.parametrize(
    ("module", "message"),
    [(Eigenvalues(), "part bad does not export to ONNX: .*_linalg_eigh"), (Branches(), "data-dependent")],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    module: nn.Module, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = EngineSpec("bad", (TensorSpec("x", (3, 3)),), ("y",))
    with pytest.raises(EngineBuildError, match=message) as caught:
        export_onnx(module, (torch.eye(3),), spec, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""
