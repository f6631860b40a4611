"""A teacher of all of ImageNet answers for a part of it; one of another number of classes is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import ClassLabel, LabelSpace
from prism_fast.models.classifier import Classifier, ClassifierConfig, load_classifier, outline_classifier
from prism_fast.models.label_space import ChosenLogits, for_label_space
from tests.tiny import make_teacher

NETTE = load_label_space("imagenette")
HALF = (0.5, 0.5, 0.5)


def _teacher(net: nn.Module, classes: int = 1000, names: tuple[str, ...] | None = None, size: int = 32) -> Classifier:
    config = ClassifierConfig(
        architecture="x", num_classes=classes, image_size=size, mean=HALF, std=HALF, label_names=names
    )
    return Classifier(net.eval(), config)


@pytest.mark.parametrize(
    ("architecture", "cut"),
    [
        ("test_resnet", True),
        ("test_vit", True),
        ("test_efficientnet", True),
        ("test_convnext", True),
        ("regnetx_002", True),
        ("resnetv2_50", False),  # its last layer is a convolution
        ("levit_128s", False),  # a norm before it, and two heads
    ],
)
def test_the_logits_are_the_wholes(architecture: str, cut: bool) -> None:
    torch.manual_seed(0)
    net = timm.create_model(architecture, num_classes=1000).eval()
    size = net.pretrained_cfg["input_size"][-1]
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        whole = net(images)
        found = for_label_space(_teacher(net, size=size), NETTE)
        torch.testing.assert_close(found.net(images), whole[:, list(NETTE.indices)])
    assert found.config.num_classes == 10
    assert isinstance(found.net, ChosenLogits) is not cut
    assert all(len(p) != 1000 for p in found.net.parameters() if p.ndim) is cut


def test_a_teacher_of_the_part_is_taken_as_it_is(tmp_path: Path) -> None:
    teacher = load_classifier(str(make_teacher(tmp_path / "t", 10)))
    assert for_label_space(teacher, NETTE) is teacher


def test_the_order_of_the_part_is_that_of_its_label_space() -> None:
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.arange(1000.0).expand(len(x), 1000) * self.one

    space = LabelSpace(
        name="mine", classes=(ClassLabel(name="b"), ClassLabel(name="a")), subset_of="imagenet1k", indices=(701, 3)
    )
    found = for_label_space(_teacher(Places()), space)
    assert found.net(torch.zeros(2, 3, 8, 8)).tolist() == [[701.0, 3.0]] * 2


def test_names_are_checked_as_for_the_whole_and_kept_of_the_part() -> None:
    names = tuple(cls.name for cls in load_label_space("imagenet1k").classes)
    found = for_label_space(_teacher(timm.create_model("test_resnet"), names=names), NETTE)
    assert found.config.label_names == tuple(cls.name for cls in NETTE.classes)
    with pytest.raises(InputError, match="class 0 of the classifier is 'goldfish'"):
        for_label_space(_teacher(timm.create_model("test_resnet"), names=(names[1], names[0], *names[2:])), NETTE)
    swapped = tuple(cls.name for cls in reversed(NETTE.classes))
    with pytest.raises(InputError, match="class 0 of the classifier is 'parachute'"):
        for_label_space(_teacher(timm.create_model("test_resnet", num_classes=10), 10, swapped), NETTE)


@pytest.mark.parametrize("classes", [3, 100])
def test_another_number_is_refused(classes: int) -> None:
    with pytest.raises(
        InputError, match=rf"knows {classes} classes, label space 'imagenette' has 10, a part of imagen"
    ):
        for_label_space(_teacher(nn.Identity(), classes), NETTE)
    with pytest.raises(InputError, match=rf"knows {classes} classes, label space 'emoji' has 16$"):
        for_label_space(_teacher(nn.Identity(), classes), load_label_space("emoji"))
    with pytest.raises(InputError, match="knows 1000 classes, label space 'emoji' has 16"):
        for_label_space(_teacher(nn.Identity()), load_label_space("emoji"))


@pytest.mark.parametrize("labels", ["imagenet1k", "imagenette"])
def test_a_teacher_of_tensorflow_or_of_21k_is_told_what_it_looks_like(labels: str) -> None:
    space = load_label_space(labels)
    with pytest.raises(InputError, match=r"knows 1001 classes, .*models have a background class first: drop row 0 of"):
        for_label_space(_teacher(nn.Identity(), 1001), space)
    with pytest.raises(InputError, match=r"knows 21843 classes, .*looks like one of ImageNet-21k: take one that was f"):
        for_label_space(_teacher(nn.Identity(), 21_843), space)


def test_an_outline_is_cut_too() -> None:
    found = for_label_space(outline_classifier("test_resnet"), load_label_space("imagenet100"))
    assert found.config.num_classes == 100
    assert found.net(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 100)
    other = for_label_space(_teacher(outline_classifier("resnetv2_50").net), NETTE)
    assert other.net(torch.zeros(1, 3, 64, 64, device="meta")).shape == (1, 10)
