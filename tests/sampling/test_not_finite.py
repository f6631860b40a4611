"""What is not finite is quarantined, or stored as nothing: a shard holds numbers alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from prism_fast.config import assign
from prism_fast.dataset.plan import build_plan
from prism_fast.models.text import Embedding
from prism_fast.synthesis.synthesizer import Synthesizer

CPU = torch.device("cpu")
STEPS = 10


def test_the_synthesizer_reports_the_quarantined_index(synthesizer: Synthesizer) -> None:
    rows = build_plan(synthesizer.config, 4)
    clean = synthesizer.make(rows)
    other = Synthesizer(synthesizer.config, synthesizer.model, synthesizer.teacher, synthesizer.hashes)
    poison = "a prompt of its own"
    other._embeddings[poison] = Embedding(torch.full_like(synthesizer.embed([rows[0].prompt]).text, float("nan")))
    made = other.make([rows[0], replace(rows[1], prompt=poison), *rows[2:]])
    assert made.quarantined == (1,)
    assert [s.index for s in made.samples] == [0, 2, 3]
    for mine, theirs in zip(made.samples, (clean.samples[i] for i in (0, 2, 3)), strict=True):
        assert torch.equal(mine.image, theirs.image)
        assert torch.equal(mine.logits, theirs.logits)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 65_520.0, -1e30])
def test_what_the_teacher_is_not_finite_for_is_quarantined(synthesizer: Synthesizer, value: float) -> None:
    """Its logits were stored, and training was advised to be slower."""

    class Spoiled:
        name = "teacher"

        def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            logits = synthesizer.engines.teacher.run(*inputs)[0].clone()
            logits[1, 0] = value
            return (logits,)

    other = synthesizer.with_engines(replace(synthesizer.engines, teacher=cast(Any, Spoiled())))
    made = other.make(build_plan(synthesizer.config, 4))
    assert made.quarantined == (1,)
    assert all(torch.isfinite(sample.logits.to(torch.float16)).all() for sample in made.samples)  # as they are stored


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_objective_that_is_no_number_is_stored_as_none(synthesizer: Synthesizer, value: float) -> None:
    rows = build_plan(synthesizer.config, 2)
    sampled = synthesizer.denoise(rows)
    spoiled = replace(sampled, energy_before=torch.full_like(sampled.energy_before, value))
    for sample in synthesizer.finish(rows, spoiled).samples:
        assert json.loads(json.dumps(sample.meta, allow_nan=False))["objective_before"] is None


def test_what_an_unguided_sample_says_of_itself_is_json(synthesizer: Synthesizer) -> None:
    """It has no objective: not a number would be none of JSON's."""
    config = assign(synthesizer.config, {"guidance.enabled": False})
    run = Synthesizer(config, synthesizer.model, synthesizer.teacher, synthesizer.hashes)
    for sample in run.make(build_plan(config, 2)).samples:
        assert json.loads(json.dumps(sample.meta, allow_nan=False))["objective_before"] is None
