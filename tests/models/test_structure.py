"""Networks that are cut, narrowed or spliced: taken apart, written, read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from prism_fast.errors import DataError, InputError
from prism_fast.models.architecture import create_network
from prism_fast.models.classifier import ClassifierConfig, load_classifier, outline_classifier, save_classifier
from prism_fast.models.structure.anatomy import examine
from prism_fast.models.structure.build import build
from prism_fast.models.structure.description import Structure
from prism_fast.models.structure.narrow import narrow
from tests.damage import drop_tensor, edit

SIDES = {"test_resnet": 32, "test_efficientnet": 32, "regnetx_002": 32, "test_convnext": 32, "test_vit": 160}


def _config(architecture: str, structure: Structure | None = None, side: int = 32) -> ClassifierConfig:
    return ClassifierConfig(
        architecture=architecture,
        num_classes=3,
        image_size=side,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        structure=structure,
    )


def _pictures(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def _cut(architecture: str = "test_efficientnet") -> Structure:
    return Structure(blocks=2, head="projected", activation="relu", classifier=architecture)


@pytest.mark.parametrize(
    ("name", "groups", "tail", "layout", "activation"),
    [
        ("test_resnet", ("layer1", "layer4"), (), "NCHW", "relu"),
        ("test_efficientnet", ("blocks.0", "blocks.4"), ("conv_head", "bn2"), "NCHW", "silu"),
        ("regnetx_002", ("s1", "s4"), ("final_conv",), "NCHW", "relu"),
        ("test_convnext", ("stages.0", "stages.3"), ("norm_pre",), "NCHW", "identity"),
        ("test_vit", ("blocks.0", "blocks.5"), ("norm",), "NLC", "identity"),
    ],
)
def test_the_parts_of_each_family_are_found(
    name: str, groups: tuple[str, str], tail: tuple[str, ...], layout: str, activation: str
) -> None:
    net = create_network(name, 3, SIDES[name])
    found = examine(net, SIDES[name])
    assert (found.groups[0], found.groups[-1]) == groups
    assert (found.tail, found.layout, found.activation) == (tail, layout, activation)
    assert found.channels == net.num_features


@pytest.mark.parametrize("name", SIDES)
def test_a_network_put_together_again_computes_what_it_did(name: str) -> None:
    side = SIDES[name]
    whole = create_network(name, 3, side).eval()
    net = build(name, 3, side, Structure()).eval()
    state = whole.state_dict()
    net.load_state_dict({key: state[key.partition(".")[2]] for key in net.state_dict()})
    with torch.no_grad():
        expected, outputs = whole(_pictures(side)), net.features(_pictures(side))
        torch.testing.assert_close(net(_pictures(side)), expected)
    torch.testing.assert_close(outputs.logits, expected)
    assert outputs.pooled is not None
    assert all(maps.ndim == 4 for maps in outputs.maps)
    assert outputs.maps[-1].shape[1] == outputs.pooled.shape[1]
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize(
    ("name", "head"), [*((name, "projected") for name in SIDES), ("test_resnet", "linear"), ("test_vit", "linear")]
)
def test_a_cut_network_is_smaller_and_read_back_bit_for_bit(name: str, head: str, tmp_path: Path) -> None:
    side = SIDES[name]
    structure = _cut(name) if head == "projected" else Structure(blocks=2, head="linear")
    net = build(name, 3, side, structure).eval()
    whole = examine(create_network(name, 3, side), side)
    assert not any(key.startswith(f"trunk.{whole.groups[2]}.") for key in net.state_dict())
    assert any(key.startswith(f"trunk.{whole.groups[1]}.") for key in net.state_dict())
    save_classifier(net, _config(name, structure, side), tmp_path)
    found = load_classifier(str(tmp_path))
    assert found.config.structure == structure
    assert torch.equal(found.net(_pictures(side)), net(_pictures(side)))
    outline = outline_classifier(str(tmp_path)).net
    assert {k: v.shape for k, v in outline.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}
    assert all(value.is_meta for value in outline.parameters())


def test_projected_features_are_the_last_map() -> None:
    net = build("test_resnet", 3, 32, _cut()).eval()
    outputs = net.features(_pictures(32))
    torch.testing.assert_close(outputs.maps[-1], net.forward_features(_pictures(32)))
    torch.testing.assert_close(outputs.maps[-1].mean((2, 3)), outputs.pooled)
    assert outputs.maps[-1].shape[1] == 256
    assert len(outputs.maps) == 4  # stem, two groups, projection


def test_a_frozen_head_never_learns_nor_counts() -> None:
    structure = Structure(head="projected", classifier="mobilenetv4_conv_small_050")  # a batch norm in its head
    net = build("test_resnet", 3, 64, structure).train().requires_grad_(True)
    assert net.training
    assert not net.head.training
    before = {key: value.clone() for key, value in net.head.state_dict().items()}
    net(_pictures(64)).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in net.head.state_dict().items())
    assert all(weight.grad is None for weight in net.head.parameters())
    assert all(weight.grad is not None for weight in [*net.trunk.parameters(), *net.projection.parameters()])


def test_narrow_layers_know_their_size() -> None:
    net: Any = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=16), nn.Linear(6, 5))
    shapes = {
        "0.weight": (12, 4, 3, 3),
        "0.bias": (12,),
        "2.weight": (12, 1, 3, 3),
        "2.bias": (12,),
        "3.weight": (5, 3),
    }
    shapes |= {f"1.{key}": (12,) for key in ("weight", "bias", "running_mean", "running_var")}
    narrow(net, shapes)
    assert (net[0].in_channels, net[0].out_channels, net[1].num_features) == (4, 12, 12)
    assert (net[2].groups, net[2].in_channels, net[3].in_features) == (12, 12, 3)
    assert net[:3](torch.randn(1, 4, 8, 8)).shape == (1, 12, 4, 4)


def test_narrow_refuses_wider() -> None:
    with pytest.raises(DataError, match=r"weight is \(9, 4\), which is no part of \(8, 4\)"):
        narrow(nn.Sequential(nn.Linear(4, 8)), {"0.weight": (9, 4)})


def _structured(**changes: object) -> Callable[[Path], None]:
    return lambda path: edit(path / "config.json", structure={**_cut().model_dump(), **changes})


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "more blocks": (_structured(blocks=9), r"has 5 block groups; expected 1 to 5 to keep, got 9"),
    "other blocks": (_structured(blocks=3), r"weights do not fit test_efficientnet"),
    "no classifier": (_structured(classifier=None), r"'structure': .*needs the name of its classifier"),
    "a cut with its own head": (_structured(head="own", classifier=None), r"cannot go into its own head"),
    "an unknown classifier": (_structured(classifier="resnet1O"), r"timm knows no architecture 'resnet1O'"),
    "an unknown head": (_structured(head="round"), r"'structure\.head': Input should be"),
    "an unknown key": (_structured(depth=3), r"'structure\.depth' is an unknown key"),
    "an unknown option": (_structured(options={"wheels": 4}), r"cannot be made .*wheels"),
    "another activation": (_structured(activation="sine"), r"'structure\.activation'"),
    "tokens of maps": (_structured(classifier="test_vit"), r"takes tokens"),
    "a tensor less": (lambda p: drop_tensor(p / "model.safetensors"), r"1 are missing"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_description_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    save_classifier(build("test_efficientnet", 3, 32, _cut()), _config("test_efficientnet", _cut()), tmp_path)
    damage, message = BROKEN[kind]
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        load_classifier(str(tmp_path))


def test_a_family_without_known_groups_is_refused() -> None:
    with pytest.raises(InputError, match="block groups of a DenseNet are not known"):
        build("densenet121", 3, 32, Structure(blocks=2, head="linear"))


def test_a_plain_network_is_written_as_before(tmp_path: Path) -> None:
    save_classifier(timm.create_model("test_resnet", num_classes=3), _config("test_resnet"), tmp_path)
    assert "structure" not in (tmp_path / "config.json").read_text()
