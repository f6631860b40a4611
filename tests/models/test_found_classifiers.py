"""Classifiers as people have them: timm's and transformers' directories, and checkpoints of training scripts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prism_fast.errors import DataError, InputError
from prism_fast.models.classifier import (
    ClassifierConfig,
    create_network,
    load_classifier,
    outline_classifier,
    require_input_size,
    save_classifier,
)
from prism_fast.models.content_hash import content_hash
from tests.damage import edit
from tests.tiny import make_teacher, make_timm_hub, make_transformers_classifier

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _refused(path: Path, words: str) -> str:
    with pytest.raises(InputError, match=words) as caught:
        load_classifier(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _network(path: Path) -> nn.Module:
    """The network whose weights lie in ``path``."""
    net: nn.Module = timm.create_model("test_resnet", num_classes=3).eval()
    net.load_state_dict(load_file(path / "model.safetensors"))
    return net


def test_a_timm_directory(tmp_path: Path) -> None:
    path = make_timm_hub(tmp_path / "hub", label_names=["cat", "dog", "red"])
    found = load_classifier(str(path))
    assert (found.config.architecture, found.config.num_classes, found.config.image_size) == ("test_resnet", 3, 32)
    assert (found.config.mean, found.config.std) == ((0.4,) * 3, (0.2,) * 3)
    assert found.config.label_names == ("cat", "dog", "red")
    assert torch.equal(found.net(IMAGES), _network(path)(IMAGES))
    assert outline_classifier(str(path)).config == found.config


def test_an_old_timm_directory_is_flat(tmp_path: Path) -> None:
    path = make_timm_hub(tmp_path / "hub")
    document = json.loads((path / "config.json").read_text())
    flat = {"architecture": document["architecture"], "num_classes": 3, **document["pretrained_cfg"]}
    (path / "config.json").write_text(json.dumps(flat))
    assert load_classifier(str(path)).config.image_size == 32


def test_timm_arguments_are_followed(tmp_path: Path) -> None:
    path = make_timm_hub(tmp_path / "hub", "test_vit", 32, model_args={"img_size": 32})
    assert load_classifier(str(path)).net(IMAGES).shape == (2, 3)
    edit(path / "config.json", model_args={"no_such": 1})
    _refused(path, "test_vit cannot be made .*no_such")


@pytest.mark.parametrize("size", [[1, 32, 32], [3, 32, 48], 32])
def test_a_timm_directory_of_other_images_is_refused(tmp_path: Path, size: object) -> None:
    path = make_timm_hub(tmp_path / "hub")
    document = json.loads((path / "config.json").read_text())
    edit(path / "config.json", pretrained_cfg={**document["pretrained_cfg"], "input_size": size})
    _refused(path, r"input_size is .*expected \[3, side, side\]")


@pytest.mark.parametrize("make", [make_timm_hub, make_transformers_classifier])
def test_a_pickle_in_a_hub_directory_is_refused_with_its_conversion(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / "hub")
    expected = load_classifier(str(path)).net(IMAGES)
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    line = _refused(path, "pytorch_model.bin, a pickle")
    exec(shlex.split(line.partition("once with: ")[2])[2], {})
    assert torch.equal(load_classifier(str(path)).net(IMAGES), expected)


def test_a_transformers_directory(tmp_path: Path) -> None:
    from transformers import ViTForImageClassification

    path = make_transformers_classifier(tmp_path / "vit")
    found = load_classifier(str(path))
    assert found.config == ClassifierConfig(
        architecture="ViTForImageClassification",
        num_classes=3,
        image_size=32,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        label_names=("cat", "dog", "red"),
    )
    expected: Any = ViTForImageClassification.from_pretrained(path)
    torch.testing.assert_close(found.net(IMAGES), expected.eval()(pixel_values=IMAGES).logits)
    assert not any(p.requires_grad for p in found.net.parameters())
    outline = outline_classifier(str(path))
    assert outline.config == found.config
    assert outline.net(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 3)


def test_numbered_names_are_none(tmp_path: Path) -> None:
    path = make_transformers_classifier(tmp_path / "vit", ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert load_classifier(str(path)).config.label_names is None


@pytest.mark.parametrize(
    ("pixels", "side"),
    [
        ({"size": 32}, 32),
        ({"size": {"shortest_edge": 32}}, 32),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}, 32),
        ({"size": {"height": 32, "width": 32}, "crop_size": 28, "do_center_crop": False}, 32),
    ],
)
def test_sizes_of_image_processors(tmp_path: Path, pixels: dict[str, Any], side: int) -> None:
    path = make_transformers_classifier(tmp_path / "vit", **pixels)
    assert load_classifier(str(path)).config.image_size == side


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ({"size": {"height": 32, "width": 48}}, "expected a square"),
        ({"rescale_factor": 1 / 127.5}, "rescales pixels"),
        ({"image_mean": None}, "lacks 'image_mean'"),
    ],
)
def test_image_processors_that_are_not_followed(tmp_path: Path, pixels: dict[str, Any], words: str) -> None:
    _refused(make_transformers_classifier(tmp_path / "vit", **pixels), words)


def test_transformers_directories_that_are_no_classifiers(tmp_path: Path) -> None:
    path = make_transformers_classifier(tmp_path / "vit")
    (path / "preprocessor_config.json").unlink()
    _refused(path, "preprocessor_config.json is missing")
    edit(path / "config.json", architectures=["ViTModel"])
    _refused(path, "is of ViTModel; expected an image classifier")


def test_a_transformers_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    path = make_transformers_classifier(tmp_path / "vit")
    state = load_file(path / "model.safetensors")
    del state["classifier.bias"]
    save_file(state, path / "model.safetensors", {"format": "pt"})
    _refused(path, "its weights lack 1 tensors, the first is classifier.bias")


def _checkpoint(folder: Path, wrap: Any, suffix: str = ".pth") -> tuple[Path, nn.Module]:
    """A checkpoint file with a sidecar, and the network that it holds."""
    path = make_teacher(folder / "teacher")
    state = load_file(path / "model.safetensors")
    file = path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(wrap(state), file)
    else:
        torch.save(wrap(state), file)
    net = _network(path)
    (path / "model.safetensors").unlink()
    return file, net


def _prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


WRAPS: dict[str, Any] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "arch": "x"},
    "model": lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    "ema first": lambda s: {"model": {k: v * 0 for k, v in s.items()}, "model_ema": s},
    "distributed": lambda s: _prefixed(s, "module."),
    "compiled": lambda s: _prefixed(s, "_orig_mod."),
    "both in a container": lambda s: {"state_dict": _prefixed(s, "_orig_mod.module.")},
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_checkpoint_file_beside_its_config(tmp_path: Path, wrap: str) -> None:
    file, net = _checkpoint(tmp_path, WRAPS[wrap])
    found = load_classifier(str(file))
    assert torch.equal(found.net(IMAGES), net(IMAGES))
    assert outline_classifier(str(file)).config == found.config
    assert content_hash(file) != content_hash(file.with_name("config.json"))


@pytest.mark.parametrize("wrap", ["plain", "distributed", "compiled"])
def test_a_safetensors_file_beside_its_config(tmp_path: Path, wrap: str) -> None:
    file, net = _checkpoint(tmp_path, WRAPS[wrap], ".safetensors")
    assert torch.equal(load_classifier(str(file)).net(IMAGES), net(IMAGES))


def test_prefixes_in_a_directory_are_taken_off(tmp_path: Path) -> None:
    path = make_teacher(tmp_path / "teacher")
    expected = load_classifier(str(path)).net(IMAGES)
    save_file(_prefixed(load_file(path / "model.safetensors"), "module."), path / "model.safetensors")
    assert torch.equal(load_classifier(str(path)).net(IMAGES), expected)


def test_a_checkpoint_of_torchvision(tmp_path: Path) -> None:
    """Its ResNets have timm's names."""
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=3).eval()
    torch.save(net.state_dict(), tmp_path / "resnet18-abc.pth")
    config = ClassifierConfig(
        architecture="resnet18", num_classes=3, image_size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    torch.testing.assert_close(load_classifier(str(tmp_path / "resnet18-abc.pth")).net(IMAGES), net(IMAGES))


def test_a_checkpoint_without_its_config_says_what_to_write(tmp_path: Path) -> None:
    file, _ = _checkpoint(tmp_path, WRAPS["plain"])
    (file.parent / "config.json").unlink()
    line = _refused(file, "write config.json beside it")
    written = json.loads(line[line.index("{") :])
    assert ClassifierConfig.model_validate(written).architecture == "resnet50"


class Danger:
    """What a pickle may do."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemError('code was run')",)


@pytest.mark.parametrize("case", ["code", "zeros", "text", "module", "empty"])
def test_a_checkpoint_that_is_none_is_one_line_and_runs_no_code(tmp_path: Path, case: str) -> None:
    file, net = _checkpoint(tmp_path, WRAPS["plain"])
    if case in ("code", "module"):
        torch.save(Danger() if case == "code" else net, file)
    else:
        file.write_bytes({"zeros": bytes(5000), "text": b"hello", "empty": b""}[case])
    line = _refused(file, "cannot be read as weights")
    assert "weights_only" not in line


@pytest.mark.parametrize(
    ("held", "words"), [({"epoch": 3}, "holds no weights but epoch"), ([1], "but list"), ({}, "no")]
)
def test_a_checkpoint_without_weights(tmp_path: Path, held: object, words: str) -> None:
    file, _ = _checkpoint(tmp_path, lambda s: held)
    _refused(file, words)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    _refused(tmp_path / "net.onnx", r"expected a directory, or a file ending in \.safetensors, \.pth, \.pt")


def test_a_mismatch_is_short(tmp_path: Path) -> None:
    path = make_teacher(tmp_path / "teacher")
    state = load_file(path / "model.safetensors")
    others = {f"backbone.stages.{i}.very.long.name.of.a.block.weight": torch.zeros(1) for i in range(500)}
    del state["fc.bias"]
    save_file({**state, **others, "fc.weight": torch.zeros(5, 4)}, path / "model.safetensors")
    line = _refused(path, "fc.weight is .*1 are missing, the first is fc.bias; 500 are unknown")
    assert len(line.removeprefix(str(path))) < 200


@pytest.mark.parametrize("key", ["architecture", "num_classes", "image_size", "mean", "std"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = make_teacher(tmp_path / "teacher")
    document = json.loads((path / "config.json").read_text())
    del document[key]
    (path / "config.json").write_text(json.dumps(document))
    _refused(path, f"'{key}' is missing; expected architecture, num_classes, image_size, mean, std")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"num_classes": 0}, "'num_classes'"), ({"mean": [1, 2]}, "'mean"), ({"colour": "red"}, "'colour' is an unknown")],
)
def test_a_wrong_key_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = make_teacher(tmp_path / "teacher")
    edit(path / "config.json", **changes)
    _refused(path, words)


@pytest.mark.parametrize("key", ["label_names", "labels"])
def test_names_of_classes_are_kept(tmp_path: Path, key: str) -> None:
    path = make_teacher(tmp_path / "teacher")
    assert load_classifier(str(path)).config.label_names is None
    edit(path / "config.json", **{key: ["cat", "dog", "red"]})
    found = load_classifier(str(path))
    assert found.config.label_names == ("cat", "dog", "red")
    again = save_classifier(found.net, found.config, tmp_path / "again")
    assert load_classifier(str(again)).config == found.config
    edit(path / "config.json", **{key: ["cat"]})
    _refused(path, "1 label_names for 3 classes")


def test_what_is_written_without_names_is_what_it_was() -> None:
    config = ClassifierConfig(architecture="x", num_classes=3, image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    keys = ["architecture", "num_classes", "image_size", "mean", "std"]
    assert list(config.model_dump()) == list(json.loads(config.model_dump_json())) == keys


VIT = "vit_tiny_patch16_224"


def _vit(folder: Path, architecture: str, size: int, net: nn.Module) -> Path:
    half = (0.5,) * 3
    config = ClassifierConfig(architecture=architecture, num_classes=3, image_size=size, mean=half, std=half)
    return save_classifier(net, config, folder / "vit")


@pytest.mark.parametrize("size", [32, 224])
def test_a_vit_is_made_for_its_images(tmp_path: Path, size: int) -> None:
    torch.manual_seed(0)
    net = create_network(VIT, 3, size)
    path, images = _vit(tmp_path, VIT, size, net), torch.rand(2, 3, size, size)
    found = load_classifier(str(path))
    torch.testing.assert_close(found.net(images), net.eval()(images))
    assert outline_classifier(str(path)).net(images.to("meta")).shape == (2, 3)
    require_input_size(found, size, "guidance.view_size")
    with pytest.raises(InputError, match=rf"guidance\.view_size is 48, which {VIT} of {size} .* set it to") as caught:
        require_input_size(found, 48, "guidance.view_size")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_networks_of_any_size_are_made_as_before(tmp_path: Path, architecture: str) -> None:
    torch.manual_seed(0)
    expected = timm.create_model(architecture, num_classes=3).state_dict()
    torch.manual_seed(0)
    net = create_network(architecture, 3, 48)
    made = net.state_dict()
    assert all(torch.equal(expected[key], made[key]) for key in expected)
    found = load_classifier(str(_vit(tmp_path, architecture, 48, net)))
    require_input_size(found, 64, "guidance.view_size")


def test_weights_of_its_images_size_are_loaded_where_any_size_is_taken(tmp_path: Path) -> None:
    net = timm.create_model("test_vit", num_classes=3, img_size=32).eval()
    found = load_classifier(str(_vit(tmp_path, "test_vit", 32, net)))
    assert torch.equal(found.net(IMAGES), net(IMAGES))


def test_a_vit_of_another_size_than_its_weights_is_refused(tmp_path: Path) -> None:
    _refused(_vit(tmp_path, VIT, 64, create_network(VIT, 3, 32)), f"do not fit {VIT}: pos_embed is")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_teacher(tmp_path / "teacher")
    assert load_classifier("~/teacher").config == outline_classifier("~/teacher").config


def test_a_name_that_looks_like_an_address_is_refused() -> None:
    for name in ("hf-hub:timm/resnet18", "no/such", "s3://x"):
        with pytest.raises(InputError, match="neither a directory nor a timm model name"):
            load_classifier(name)


def test_a_config_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    path = make_teacher(tmp_path / "teacher")
    (path / "config.json").unlink()
    (path / "config.json").mkdir()
    _refused(path, r"config\.json cannot be read: Is a directory")


def test_data_errors_stay_data_errors(tmp_path: Path) -> None:
    path = make_teacher(tmp_path / "teacher")
    (path / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        load_classifier(str(path))
