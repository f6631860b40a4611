"""Weights that are known to have been trained with binary cross-entropy are told of, once; others are not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from prism_fast.labels.load import load_label_space
from prism_fast.models import training_loss
from prism_fast.models.classifier import load_classifier, outline_classifier
from prism_fast.models.classifier_config import ClassifierConfig
from prism_fast.models.label_space import for_label_space
from tests.tiny import make_timm_hub

HALF = (0.5, 0.5, 0.5)


def _config(architecture: str, classes: int = 1000, tag: str | None = None) -> ClassifierConfig:
    return ClassifierConfig(architecture=architecture, num_classes=classes, image_size=8, mean=HALF, std=HALF, tag=tag)


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "resnet18.a2_in1k", "resnet34.a3_in1k", "resnetv2_50.a1h_in1k", "resnet50"]
)
def test_timms_names_say_it(name: str) -> None:
    """A name without a tag is that of timm's first choice, for resnet50 a1_in1k."""
    assert "2110.00476" in str(training_loss.binary_loss(outline_classifier(name).config))


@pytest.mark.parametrize(
    "name", ["resnet50.tv_in1k", "resnet50.tv2_in1k", "resnet50.ram_in1k", "resnet50.gluon_in1k", "resnet50.b1k_in1k"]
)
def test_what_is_not_known_to_be_so_is_not_told(name: str) -> None:
    assert training_loss.binary_loss(outline_classifier(name).config) is None


def test_of_deit_iii_the_one_that_was_not_fine_tuned_otherwise() -> None:
    assert training_loss.binary_loss(_config("deit3_small_patch16_224", tag="fb_in1k"))
    assert training_loss.binary_loss(_config("deit3_small_patch16_224.fb_in1k"))
    for name in ("deit3_base_patch16_224.fb_in1k", "deit3_small_patch16_224.fb_in22k_ft_in1k", "convnext_tiny.fb_in1k"):
        assert training_loss.binary_loss(_config(name)) is None


def test_a_network_trained_further_is_not_told_of() -> None:
    assert training_loss.binary_loss(_config("resnet50", 10, "a1_in1k")) is None
    assert training_loss.binary_loss(_config("resnet50")) is None  # your own weights beside a config.json


def test_a_hub_directory_says_it_by_its_tag(tmp_path: Path) -> None:
    path = make_timm_hub(tmp_path / "hub")
    document = json.loads((path / "config.json").read_text())
    document["pretrained_cfg"]["tag"] = "a1_in1k"
    (path / "config.json").write_text(json.dumps(document))
    assert load_classifier(str(path)).config.tag == "a1_in1k"


def test_one_line_once_when_a_teacher_meets_its_labels(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loss, "_told", set())
    space = load_label_space("imagenet100")
    with caplog.at_level(logging.WARNING, "prism_fast"):
        for_label_space(outline_classifier("resnet50.tv_in1k"), space)
        assert caplog.messages == []
        for _ in range(2):
            for_label_space(outline_classifier("resnet18"), space)
    (line,) = caplog.messages
    assert "\n" not in line
    for words in ("resnet18.a1_in1k", "binary cross-entropy", "recipe A1", "such as resnet50.tv_in1k"):
        assert words in line
