from __future__ import annotations

import json
from pathlib import Path

import pytest
from prism_engines import gate
from prism_engines.backends.openvino import OpenVinoBackend
from prism_engines.errors import GateError
from prism_engines.gate import Threshold
from prism_engines.store import Store

from prism_fast.cli.build_engines import _print
from prism_fast.compile.build import Built, Refused
from tests.cli.conftest import Command

KEYS = {
    "part", "backend", "precision", "key", "size_bytes", "build_s", "rel_error", "cosine", "speedup_vs_eager",
    "break_even_images", "gated_through",
}  # fmt: skip
INPUT, FAILED = 2, 1


@pytest.fixture(autouse=True)
def _libraries() -> None:
    for name in ("openvino", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the tests share; whichever comes first fills it."""
    return tmp_path_factory.mktemp("engines") / "store"


def test_json(prism: Command, tiny: Path, root: Path) -> None:
    arguments = ("build-engines", tiny, "--store", root, "--backend", "openvino", "--precision", "fp32", "--json")
    answer = prism(*arguments, "--parts", "text_encoder, decoder")
    assert answer.code == 0, answer.err
    first, second = json.loads(answer.out)
    assert set(first) == set(second) == KEYS
    assert [first["part"], second["part"]] == ["text_encoder", "decoder"]
    assert {first["backend"], first["gated_through"]} == {"openvino"}
    assert first["precision"] == "fp32"
    assert Store(root).by_prefix(first["key"]).size_bytes == first["size_bytes"]
    assert [line for line in answer.err.splitlines() if line.startswith("[")] == ["[1/2] text_encoder", "[2/2] decoder"]

    again = prism(*arguments, "--parts", "decoder")
    assert json.loads(again.out) == [second]
    assert again.err == "[1/1] decoder\n"


def test_the_table(prism: Command, tiny: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = prism(
        "build-engines", tiny, "--store", root, "--backend", "openvino", "--precision", "fp32", "--parts", "decoder"
    )
    assert answer.code == 0, answer.err
    assert all(len(line) <= 80 for line in answer.out.splitlines())
    *_, row = answer.out.splitlines()
    assert row.split()[:3] == ["decoder", "openvino", "fp32"]
    assert len(row.split()) == 9


def line(part: str, backend: str, gated_through: str, speedup: float | None, images: int | None) -> Built:
    return Built(
        part, backend, "bf16", "0" * 64, 3_438_123_456, 1234.56, 0.18946, 0.95023, speedup, images, gated_through
    )


def test_eighty_columns_hold_the_widest_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    built = [
        line("text_encoder_2", "onnxruntime", "onnxruntime", 39.3, 1234567),
        line("energy_gradient", "tensorrt_rtx", "onnxruntime, the fp32 graph", None, None),
    ]
    _print(
        built, [Refused("unet", "inductor", "a reason [in brackets] that is a good deal longer than " + "a line " * 9)]
    )
    out = capsys.readouterr().out
    assert "…" not in out
    first, second, checked, refused = out.splitlines()[2:]
    assert " ".join(first.split()) == "text_encoder_2 onnxruntime bf16 3438.1 1234.6 1.9e-01 0.95023 39.30 1234567"
    assert " ".join(second.split()) == "energy_gradient tensorrt_rtx bf16 3438.1 1234.6 1.9e-01 0.95023 – –"
    assert max(map(len, out.splitlines()[:4])) <= 80
    assert checked == "energy_gradient, tensorrt_rtx: checked by onnxruntime, the fp32 graph"
    assert refused.startswith("unet, inductor: a reason [in brackets] that")
    assert "even at" in out


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--parts", "unet,text", "part 'text' is unknown, expected some of: text_encoder, unet, unet_deep,"),
        ("--backend", "tvm", "backend 'tvm' is unknown, expected one of: openvino, inductor, onnxruntime,"),
        ("--precision", "int8", "precision 'int8' is unknown, expected one of: auto, fp32, bf16, fp16"),
    ],
)
def test_a_wrong_argument(prism: Command, tiny: Path, root: Path, option: str, value: str, message: str) -> None:
    answer = prism("build-engines", tiny, "--store", root, option, value)
    assert answer.code == INPUT
    assert message in answer.error()


def test_a_missing_configuration(prism: Command, tmp_path: Path, root: Path) -> None:
    answer = prism("build-engines", tmp_path / "absent.yaml", "--store", root)
    assert answer.code == INPUT
    assert "is neither a file nor one of: imagenet100-sd15, " in answer.error()


def test_a_named_backend_that_cannot(prism: Command, tiny: Path, root: Path) -> None:
    answer = prism("build-engines", tiny, "--store", root, "--backend", "openvino", "--precision", "fp16")
    assert answer.code == INPUT
    assert answer.err.splitlines()[-1] == (
        "error: openvino cannot build text_encoder here: openvino does not build fp16; choose fp32 or bf16"
    )


def test_a_failed_gate_is_a_failed_run(
    prism: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in (gate.THRESHOLDS, gate.GRADIENT_THRESHOLDS):
        monkeypatch.setitem(table, "fp32", Threshold(0.0, 1.0))
    answer = prism(
        "build-engines", tiny, "--store", tmp_path / "store", "--backend", "openvino", "--precision", "fp32",
        "--parts", "text_encoder",
    )  # fmt: skip
    assert (answer.code, answer.out) == (FAILED, "")
    last = answer.err.splitlines()[-1]
    assert last.startswith("error: text_encoder (fp32): output hidden has relative error ")
    assert "(at most 0), cosine " in last
    assert [p.name for p in (tmp_path / "store").iterdir()] == [".staging"]


def test_auto_that_gives_nothing_says_every_reason(
    prism: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise GateError("decoder (fp32): wrong")

    for name in ("inductor.InductorBackend", "onnxruntime.OnnxRuntimeBackend", "tensorrt.TensorRtBackend"):
        monkeypatch.setattr(f"prism_engines.backends.{name}.reasons", lambda self, spec: ["not here"])
    monkeypatch.setattr(OpenVinoBackend, "build", wrong)
    answer = prism("build-engines", tiny, "--store", tmp_path / "store", "--precision", "fp32", "--parts", "decoder")
    assert answer.code == FAILED
    last = answer.err.splitlines()[-1]
    assert "no backend gives an engine of decoder (openvino: decoder (fp32): wrong); engines of other parts" in last
