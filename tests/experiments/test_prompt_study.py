"""The study of prompts: its table by hand, and a small one from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prism_fast.config import load_config
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.evaluation.real_sets import real_sets
from prism_fast.experiments.prompt_study import ARMS, as_markdown, folder_of, run_study
from prism_fast.experiments.study import Study
from tests.experiments.test_demo import Recorder

SMALL = (
    "synthesis.images=48", "synthesis.shard_size=16", "sampling.steps=4", "sampling.batch_size=8", "distill.steps=2",
    "distill.student=test_resnet", "distill.loader=torch", "distill.warmup_steps=1", "engines.backend=eager",
)  # fmt: skip


def row(arm: str, seed: int, top1: float) -> dict[str, Any]:
    return {
        "arm": arm, "seed": seed, "prompts": 10, "agreement": 0.9, "vendi": 2.0 + seed, "coverage": 0.5,
        "top1": {"known": top1},
    }  # fmt: skip


def test_differences_are_taken_seed_by_seed() -> None:
    rows = [row("templates", 0, 0.5), row("templates", 1, 0.6), row("bank", 0, 0.52), row("bank", 1, 0.62)]
    lines = as_markdown(rows).splitlines()
    assert lines[2].startswith("| templates | 10 | 90.0 ± 0.0 | 2.50 ± 0.71 | 50.0 ± 0.0 | 55.0 ± 7.1 |")
    assert lines[3].endswith("| 57.0 ± 7.1 (+2.0 ± 0.0) |")


def test_an_arm_without_its_base_has_no_difference() -> None:
    assert as_markdown([row("bank", 0, 0.5)]).splitlines()[2].endswith("| 50.0 |")


@pytest.mark.slow
def test_a_small_study_from_end_to_end(tmp_path: Path) -> None:
    arms = [arm for arm in ARMS if arm.name in ("templates", "bank + coverage", "bank + round of student")]
    study = Study(load_config("minis-emoji", SMALL), tmp_path, Recorder(), real=real_sets().every(8))
    rows = run_study(study, arms, 1)
    assert json.loads((tmp_path / "study.json").read_text()) == rows
    assert [r["arm"] for r in rows] == [arm.name for arm in arms]
    assert {r["images"] for r in rows} == {48}
    assert all(0 <= top1 <= 1 for r in rows for top1 in r["top1"].values())
    decisions = RunDirectory(folder_of(study, arms[2], 0) / "run").decisions()
    assert [(d.start, d.stop, d.towards) for d in decisions] == [(32, 48, "student")]
    again = Study(study.config, tmp_path, Recorder(), real=study.real)
    assert run_study(again, arms, 1) == rows
    assert again.bars.phases == []  # type: ignore[attr-defined]
