"""A student's files give the student's logits in the libraries that they are for, or are not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from prism_fast.errors import DataError, InputError, RunError
from prism_fast.models.classifier import Classifier, ClassifierConfig, create_network, load_classifier, save_classifier
from prism_fast.models.structure.build import build
from prism_fast.models.structure.description import Structure
from prism_fast.operations.export_student import FORMATS, Exported, export_student, onnx_file, timm_directory, traced
from prism_fast.operations.export_student.source import open_source
from tests.tiny import make_timm_hub, make_transformers_classifier

NAMES = ("cat", "dog", "rød")


def make_student(path: Path, architecture: str = "test_resnet", size: int = 32) -> Path:
    """Random weights, statistics that are not those of a fresh network, and uneven normalisation."""
    torch.manual_seed(3)
    net = create_network(architecture, 3, size)
    net.train()(torch.randn(8, 3, size, size))
    config = ClassifierConfig(
        architecture=architecture, num_classes=3, image_size=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25),
        label_names=NAMES,
    )  # fmt: skip
    return save_classifier(net.eval(), config, path)


@pytest.fixture(scope="module", params=["test_resnet", "test_vit"])
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_student(tmp_path_factory.mktemp(request.param) / "student", request.param)


@pytest.fixture(scope="module")
def exported(student: Path) -> Exported:
    """Two formats from one trace; tests that only read it share it."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return export_student(student, student.parent / "out", ("onnx", "torch"))


def pixels(rows: int = 5, size: int = 32) -> Tensor:
    return torch.rand(rows, 3, size, size, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def wanted(student: Path, images: Tensor) -> Tensor:
    found = load_classifier(str(student))
    logits: Tensor = found.net(found.normalise(images))
    return logits


def test_timm_loads_it_and_gives_equal_logits(student: Path, tmp_path: Path) -> None:
    made = export_student(student, tmp_path / "out", ("safetensors",))
    assert (made.files[0].file, made.files[0].error, made.notes) == ("model.safetensors", 0.0, ())
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    known = timm.data.resolve_model_data_config(net)
    mean, std = (torch.tensor(known[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    assert tuple(known["input_size"]) == (3, 32, 32)
    assert tuple(net.pretrained_cfg["label_names"]) == NAMES
    with torch.no_grad():
        assert torch.equal(net((pixels() - mean) / std), wanted(student, pixels()))


def test_a_network_of_one_size_is_made_for_it_by_timm(tmp_path: Path) -> None:
    student = make_student(tmp_path / "student", "vit_tiny_patch16_224")
    made = export_student(student, tmp_path / "out", ("safetensors",))
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert (made.files[0].error, net.patch_embed.img_size) == (0.0, (32, 32))
    assert torch.equal(wanted(tmp_path / "out", pixels()), wanted(student, pixels()))


def test_our_own_loader_reads_what_timm_reads(student: Path, tmp_path: Path) -> None:
    export_student(student, tmp_path / "out", ("safetensors",))
    again = load_classifier(str(tmp_path / "out"))
    assert again.config.label_names == NAMES
    assert torch.equal(wanted(tmp_path / "out", pixels()), wanted(student, pixels()))
    export_student(tmp_path / "out", tmp_path / "twice", ("safetensors",))
    assert torch.equal(wanted(tmp_path / "twice", pixels()), wanted(student, pixels()))


def test_nothing_is_said_of_other_weights_of_that_name(student: Path, tmp_path: Path) -> None:
    export_student(student, tmp_path / "out", ("safetensors",))
    document = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not {"tag", "url", "hf_hub_id", "license", "origin_url"} & document["pretrained_cfg"].keys()


def test_half_weights_are_half_the_file(student: Path, tmp_path: Path) -> None:
    whole = export_student(student, tmp_path / "whole", ("safetensors",)).files[0]
    half = export_student(student, tmp_path / "half", ("safetensors",), half=True).files[0]
    assert half.size_bytes < 0.55 * whole.size_bytes
    assert 0 < half.error < 0.03


@pytest.mark.slow
def test_onnx_takes_any_batch_and_gives_the_logits(student: Path, exported: Exported) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported.out / "model.onnx"), providers=["CPUExecutionProvider"])
    for rows in (1, 2, 5):
        (logits,) = session.run(None, {"pixels": pixels(rows).numpy()})
        assert torch.allclose(torch.from_numpy(logits), wanted(student, pixels(rows)), atol=1e-5)
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
    about = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(about["labels"])) == NAMES
    assert "[0, 1]" in about["input"]


@pytest.mark.slow
def test_torch_export_takes_any_batch_and_gives_the_logits(student: Path, exported: Exported) -> None:
    extra = {"labels.json": ""}
    net = torch.export.load(exported.out / "model.pt2", extra_files=extra).module()
    for rows in (1, 2, 5):
        assert torch.allclose(net(pixels(rows)), wanted(student, pixels(rows)), atol=1e-6)
    assert tuple(json.loads(extra["labels.json"])) == NAMES


@pytest.mark.slow
def test_the_files_name_no_place_of_this_machine(exported: Exported) -> None:
    for file in ("model.onnx", "model.pt2"):
        data = (exported.out / file).read_bytes()
        assert b"site-packages" not in data
        assert str(Path(timm.__file__).parents[1]).encode() not in data


@pytest.mark.slow
def test_half_in_onnx_and_torch(student: Path, tmp_path: Path, exported: Exported) -> None:
    made = export_student(student, tmp_path / "half", ("onnx", "torch"), half=True)
    for half, whole in zip(made.files, exported.files, strict=True):
        assert half.size_bytes < 0.8 * whole.size_bytes
        assert 0 < half.error < 0.03


@pytest.mark.slow
def test_transformers_networks_go_without_timm(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    source = make_transformers_classifier(tmp_path / "vit")
    made = export_student(source, tmp_path / "out")
    assert [one.format for one in made.files] == ["onnx", "torch"]
    assert "no safetensors: " in made.notes[0]


def test_a_format_alone_that_it_cannot_have_is_refused_by_name(tmp_path: Path) -> None:
    source = make_transformers_classifier(tmp_path / "vit")
    with pytest.raises(InputError, match=r"which timm does not know; choose --format onnx or torch"):
        export_student(source, tmp_path / "out", ("safetensors",))
    assert not (tmp_path / "out").exists()


def make_cut(path: Path) -> Path:
    """The first block groups of a network, with a classifier of their own."""
    torch.manual_seed(3)
    structure = Structure(blocks=2, head="linear")
    config = ClassifierConfig(
        architecture="test_resnet", num_classes=3, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3, structure=structure
    )
    return save_classifier(build("test_resnet", 3, 32, structure).eval(), config, path)


def test_a_network_cut_out_of_another_is_not_timms(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has a structure of its own, .*; choose --format onnx or torch"):
        export_student(make_cut(tmp_path / "cut"), tmp_path / "out", ("safetensors",))


@pytest.mark.slow
def test_a_network_cut_out_of_another_goes_everywhere_else(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    made = export_student(make_cut(tmp_path / "cut"), tmp_path / "out")
    assert [one.format for one in made.files] == ["onnx", "torch"]
    assert "no safetensors: " in made.notes[0]
    assert "its first 2 block groups, head: linear" in (made.out / "README.md").read_text()


class Zeros:
    """A session that gives no class any logit."""

    def run(self, names: list[str], inputs: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        return [np.zeros((len(inputs["pixels"]), 3), np.float32)]


@pytest.mark.slow
def test_wrong_logits_leave_nothing(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(onnx_file, "_session", lambda file: Zeros())
    with pytest.raises(RunError, match=r"model\.onnx does not give the logits of .*: they differ by"):
        export_student(student, tmp_path / "out", ("safetensors", "onnx"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [1.0, float("nan")])
def test_an_error_above_the_tolerance_is_one(student: Path, wrong: float) -> None:
    source = open_source(student)

    def right(images: Tensor) -> Tensor:
        return wanted(student, images)

    assert traced.largest_error("file", source, right, half=False) == 0
    with pytest.raises(RunError, match="file does not give the logits"):
        traced.largest_error("file", source, lambda images: right(images) + wrong, half=False)


def test_weights_that_timm_would_not_load_leave_nothing(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = timm_directory._config
    monkeypatch.setattr(timm_directory, "_config", lambda source: {**before(source), "architecture": "resnet18"})
    with pytest.raises(RunError, match="timm does not load what was written"):
        export_student(student, tmp_path / "out", ("safetensors",))
    assert list(tmp_path.iterdir()) == []


def test_what_is_meant_by_a_directory(student: Path, tmp_path: Path) -> None:
    shutil.copytree(student, tmp_path / "one" / "student")
    assert open_source(tmp_path / "one").path == tmp_path / "one" / "student"
    for name in ("a", "b"):
        shutil.copytree(student, tmp_path / "two" / name / "student")
    with pytest.raises(DataError, match=r"holds 2 students; give one of them, for example .*/a/student"):
        open_source(tmp_path / "two")
    with pytest.raises(DataError, match="holds no student"):
        open_source(tmp_path / "three")


def test_an_output_that_is_taken_is_not_touched(student: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder"):
        export_student(student, tmp_path, ("safetensors",))
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]


def test_unknown_formats_are_refused(student: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"expected some of {', '.join(FORMATS)}"):
        export_student(student, tmp_path / "out", ("pickle",))  # type: ignore[arg-type]


def test_a_missing_package_is_said_before_anything_is_written(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "module_reasons", lambda *names, remedy: [f"{names[2]} is not installed; {remedy}"])
    with pytest.raises(InputError, match=r"onnxruntime is not installed; .*leave out onnx"):
        export_student(student, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_crop_and_tag_go_through(tmp_path: Path) -> None:
    hub = make_timm_hub(tmp_path / "hub")
    export_student(hub, tmp_path / "out", ("safetensors",))
    first, second = (load_classifier(str(path)) for path in (hub, tmp_path / "out"))
    assert isinstance(second, Classifier)
    assert second.config.crop_pct == first.config.crop_pct == 0.9
    assert second.config.mean == first.config.mean
