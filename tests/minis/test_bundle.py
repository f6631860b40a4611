"""The bundled models and pictures are what the model card says they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from prism_fast.config import load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.errors import DataError
from prism_fast.evaluation.pictures import load_pictures
from prism_fast.models.bundled import GENERATOR_STYLES, SHIFT_STYLES, TEACHER_STYLES, assets, resolve
from prism_fast.models.classifier import load_classifier
from prism_fast.synthesis.synthesizer import Synthesizer

TABLE = assets() / "test_pictures.parquet"


def test_no_concept_is_in_two_splits() -> None:
    rows = pq.read_table(TABLE, columns=["concept", "split"]).to_pylist()
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["concept"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "val", "test"} == set().union(*splits.values())


def test_training_pictures_are_of_the_teachers_styles_only() -> None:
    rows = pq.read_table(TABLE, columns=["style", "split"]).to_pylist()
    assert {r["style"] for r in rows if r["split"] != "test"} == set(TEACHER_STYLES)
    assert {r["style"] for r in rows if r["split"] == "test"} == {*GENERATOR_STYLES, *SHIFT_STYLES}
    assert not set(SHIFT_STYLES) & set(GENERATOR_STYLES)


def test_every_picture_is_credited() -> None:
    rows = pq.read_table(TABLE, columns=["author", "licence"]).to_pylist()
    notice = (assets().parents[2] / "NOTICE").read_text() if (assets().parents[2] / "NOTICE").exists() else ""
    if not notice:
        pytest.skip("NOTICE stands beside the checkout, not in the installed package")
    assert all(row["author"] in notice and row["licence"] in notice for row in rows)


def test_weights_are_half_precision_and_small_enough() -> None:
    files = list(assets().rglob("*.safetensors"))
    assert len(files) == 5
    assert sum(f.stat().st_size for f in files) <= 60e6


def test_teacher_knows_unseen_concepts() -> None:
    known = load_pictures(TABLE, "test", TEACHER_STYLES)
    teacher = load_classifier(resolve("minis", "teacher"))
    right = (teacher.logits(known.images).argmax(1) == known.labels).float().mean()
    assert right >= 0.70


def test_generator_draws_what_the_prompt_names() -> None:
    """Red hearts must come out red in the middle and white in the corners: colour and place, not a score."""
    config = load_config("minis-emoji", ("guidance.enabled=false", "sampling.steps=8", "sampling.batch_size=4"))
    synthesizer = Synthesizer.load(config)
    row = build_plan(config, 2)[1]
    rows = [replace(row, index=i, prompt="a twemoji style emoji of red heart") for i in range(4)]
    images = torch.stack([s.image for s in synthesizer.make(rows).samples]).float()
    red, green, blue = images[:, :, 24:40, 24:40].mean((0, 2, 3))
    assert red > green + 60
    assert red > blue + 60
    assert images[:, :, :4, :4].mean() > 200


def test_missing_style_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train picture"):
        load_pictures(TABLE, "train", ("cubist",))
    with pytest.raises(DataError, match="minis data"):
        load_pictures(tmp_path / "none.parquet", "test", TEACHER_STYLES)
