"""A teacher made smaller by one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prism_fast.errors import InputError
from prism_fast.evaluation.cost import cost_of
from prism_fast.models.classifier import load_classifier
from tests.cli.conftest import Command
from tests.tiny import write_config


@pytest.mark.slow
def test_a_teacher_becomes_smaller(prism: Command, tmp_path: Path) -> None:
    """And called again it has nothing to do."""
    recipe = {"steps": 4, "batch_size": 4, "warmup_steps": 1, "loader": "torch"}
    config, out = write_config(tmp_path, distill=recipe), tmp_path / "out"
    teacher = tmp_path / "teacher"
    arguments = ("compress", teacher, "--budget", "0.7", "--config", config, "--out", out, "--json")
    answer = prism(*arguments)
    assert answer.code == 0, answer.err
    made = json.loads(answer.out)
    assert made == json.loads((out / "compress.json").read_text())
    whole = cost_of(load_classifier(str(teacher)))
    for one in made:
        small = load_classifier(one["student"])
        assert cost_of(small, one["image_size"]).gmac <= 0.7 * whole.gmac
        assert 0 <= one["agreement"] <= 1
    assert sorted(one["divergence"] for one in made) == [one["divergence"] for one in made]
    assert json.loads(prism(*arguments).out) == made


def test_a_budget_is_a_part(prism: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "run").mkdir()
    answer = prism(
        "compress",
        tmp_path / "teacher",
        "--budget",
        "1.5",
        "--config",
        config,
        "--out",
        tmp_path / "o",
        "--run",
        tmp_path,
    )
    assert (answer.code, "between 0 and 1" in answer.error()) == (InputError.exit_code, True)
