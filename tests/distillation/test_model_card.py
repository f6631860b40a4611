"""The model card: a header that the hub reads, what was measured, and sections that an export carries over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from prism_fast.config import DistillConfig, load_config
from prism_fast.distillation.model_card import (
    LICENCE,
    MADE,
    MEASURED,
    Card,
    Checked,
    Origin,
    Training,
    looks_of,
    model_card,
    origins_of,
    sections,
)
from prism_fast.evaluation.cost import Cost, Latency
from prism_fast.models.classifier_config import ClassifierConfig
from tests.tiny import write_config

STUDENT = ClassifierConfig(
    architecture="test_resnet", num_classes=3, image_size=32, mean=(0.5,) * 3, std=(0.25,) * 3,
    label_names=("cat", "dog", "red"),
)  # fmt: skip
LOOK = {"held_out_divergence": 0.5, "held_out_agreement": 0.75, "held_out_accuracy": 0.625}
HISTORY = [{"step": 10, "loss": 2.0}, *({"step": 20 * i, **LOOK, "loss": 1.0} for i in range(1, 41))]
TRAINING = Training(
    recipe=DistillConfig(steps=800, temperature=2.5, label_weight=0.25),
    origins=(Origin("teacher", "wise", "MIT"), Origin("diffusion", "painter", "openrail")),
    run_hash="abc123",
    images=10,
    steps=800,
    loss=1.25,
    agreement=0.5,
    looks=looks_of(HISTORY),
)
COST = Cost(1234, 0.5, 32, 5000, 2500, (Latency("eager", 1, 2.5, 2),))


def header(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    data: dict[str, Any] = yaml.safe_load(front)
    return data


def test_the_header_is_the_hubs() -> None:
    data = header(model_card(Card(STUDENT, TRAINING, COST)))
    assert data["library_name"] == "prism-fast"
    assert (data["pipeline_tag"], data["license"]) == ("image-classification", "other")
    assert "knowledge-distillation" in data["tags"]
    files = (Checked("safetensors", "model.safetensors", 5, 0.0),)
    assert header(model_card(Card(STUDENT, files=files)))["library_name"] == "timm"


def test_it_tells_what_the_student_is() -> None:
    text = model_card(Card(STUDENT, TRAINING, COST))
    for said in (
        "# test_resnet, 3 classes, 32 px", "cat, dog, red", "Teacher: wise", "Generator: painter", "`abc123`",
        "`kl` (weight 0.75, temperature 2.5, standardise False)", "`hard_label` (weight 0.25, smoothing 0.0)",
        "in 50.0 %", "1,234 parameters", "0.5 GMAC", "eager: 2.5 ms for one image", "Teacher wise: MIT",
        "Generator painter: openrail", "load_classifier",
    ):  # fmt: skip
        assert said in text, said


def test_looks_are_thinned_and_the_own_one_stays() -> None:
    table = [line for line in sections(model_card(Card(STUDENT, TRAINING)))[MEASURED] if line.startswith("| ")]
    assert len(TRAINING.looks) == 40
    assert 5 < len(table) - 1 <= 13
    assert table[-1] == "| **800**, these weights | 0.5 | 75.0 % | 62.5 % |"
    assert "top-1, real" not in table[0]


def test_real_pictures_get_a_column() -> None:
    looks = looks_of([{"step": 800, **LOOK, "pictures_top1": 0.25}])
    training = Training(**{**vars(TRAINING), "looks": looks})
    assert "| 25.0 % |" in model_card(Card(STUDENT, training))


def test_without_looks_it_says_that_nothing_was_held_out() -> None:
    training = Training(**{**vars(TRAINING), "looks": ()})
    assert "Nothing was held out" in model_card(Card(STUDENT, training))


def test_an_export_keeps_what_training_alone_knows() -> None:
    first = model_card(Card(STUDENT, TRAINING))
    second = model_card(Card(STUDENT, earlier=first, files=(Checked("onnx", "model.onnx", 5, 1e-7),)))
    for title in (MADE, MEASURED, LICENCE):
        assert sections(second)[title] == sections(first)[title]
    assert "load_classifier" not in second
    assert "onnxruntime.InferenceSession" in second


@pytest.mark.parametrize("earlier", [None, "", "# Somebody else's\n\n## Usage\n\nAsk them.\n"])
def test_of_a_foreign_classifier_nothing_is_claimed(earlier: str | None) -> None:
    text = model_card(Card(STUDENT, earlier=earlier))
    assert "student of" not in text
    assert "synthetic" not in text
    assert MADE not in sections(text)
    assert "Ask them" not in text


def test_origins_are_those_of_the_run(tmp_path: Path) -> None:
    config = load_config(str(write_config(tmp_path)))
    (tmp_path / "teacher" / "README.md").write_text("---\nlicense: mit\n---\n")
    teacher, generator = origins_of(config)
    assert (teacher.part, teacher.name, teacher.licence) == ("teacher", "teacher", "mit")
    assert (generator.part, generator.licence) == ("diffusion", "not stated in its directory")
