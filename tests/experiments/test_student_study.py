"""The study of students: its table by hand, and a small one from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prism_fast.config import load_config
from prism_fast.evaluation.real_sets import real_sets
from prism_fast.experiments.student_study import ARMS, TEACHER, as_markdown, run_student_study
from prism_fast.experiments.study import Study
from tests.experiments.test_demo import Recorder
from tests.experiments.test_prompt_study import SMALL


def row(arm: str, student: str, seed: int, top1: float, **more: object) -> dict[str, Any]:
    made = {"arm": arm, "student": student, "seed": seed, "gmac": 0.1, "share": 0.5, "validation": 0.9}
    return {**made, "top1": {"known": top1}, **more}


def test_accuracy_is_said_beside_the_teachers() -> None:
    rows = [row(TEACHER, TEACHER, 0, 0.8), row("views", "kl", 0, 0.5, steps=6), row("views", "kl", 1, 0.6, steps=6)]
    lines = as_markdown(rows).splitlines()
    assert lines[2] == "| teacher | teacher |  | 0.1000 | 0.500 | 90.0 | 80.0 (100 %) |"
    assert lines[3] == "| views | kl | 6 | 0.1000 | 0.500 | 90.0 ± 0.0 | 55.0 ± 7.1 (69 %) |"


@pytest.mark.slow
def test_a_small_study_from_end_to_end(tmp_path: Path) -> None:
    arms = [arm for arm in ARMS if arm.name in ("fifth", "curve 0.10")]
    study = Study(load_config("minis-emoji", SMALL), tmp_path, Recorder(), real=real_sets().every(8))
    rows = run_student_study(study, arms, 2)
    assert json.loads((tmp_path / "study.json").read_text()) == rows
    made = [(r["arm"], r["student"], r["seed"]) for r in rows]
    assert made == [(TEACHER, TEACHER, 0), ("fifth", "cut", 0), ("fifth", "cut", 1), ("curve 0.10", "cut", 0)]
    shares = {r["arm"]: r["share"] for r in rows}
    assert shares[TEACHER] == 1
    assert 0.08 < shares["curve 0.10"] < 0.12
    assert 0.15 < shares["fifth"] < 0.2
    again = Study(study.config, tmp_path, Recorder(), real=study.real)
    assert run_student_study(again, arms, 2) == rows
    assert not any(phase.startswith("distil") for phase in again.bars.phases)  # type: ignore[attr-defined]
