"""What each step computes: the savings are decided beforehand and never contradict each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prism_fast.config import GuidanceConfig, SamplingConfig
from prism_fast.sampling.savings import Step, make_savings


def _savings(steps: int, sampling: dict[str, Any] | None = None, **guidance: Any) -> tuple[Step, ...]:
    return make_savings(steps, SamplingConfig(**(sampling or {})), GuidanceConfig(**guidance))


def test_everything_off_runs_the_whole_unet_for_both_branches() -> None:
    assert _savings(5, enabled=False) == (Step(True, "whole", "none"),) * 5


def test_deep_features_are_computed_at_every_nth_step() -> None:
    networks = [step.network for step in _savings(7, {"reuse_every": 3}, enabled=False)]
    assert networks == ["deep", "shallow", "shallow", "deep", "shallow", "shallow", "deep"]


def test_gradients_are_taken_at_every_kth_guided_step() -> None:
    steps = _savings(10, every=3, window=(0.2, 0.8))
    assert [s.gradient for s in steps] == ["none"] * 2 + ["fresh", "reused", "reused"] * 2 + ["none"] * 2


def test_an_interval_without_guidance_runs_one_branch() -> None:
    steps = _savings(10, {"guidance_interval": (0.1, 0.7)}, enabled=False)
    assert [s.both for s in steps] == [False] + [True] * 6 + [False] * 3


def test_deep_features_of_one_branch_do_not_serve_both() -> None:
    steps = _savings(6, {"guidance_interval": (0.17, 1.0), "reuse_every": 4}, enabled=False)
    assert [(s.both, s.network) for s in steps[:3]] == [(False, "deep"), (True, "deep"), (True, "shallow")]


@given(
    steps=st.integers(1, 60),
    reuse=st.integers(1, 9),
    every=st.integers(1, 9),
    interval=st.tuples(st.floats(0, 0.5), st.floats(0.51, 1)),
    window=st.tuples(st.floats(0, 0.5), st.floats(0.51, 1)),
)
def test_a_step_reuses_only_what_an_earlier_one_has_made(
    steps: int, reuse: int, every: int, interval: tuple[float, float], window: tuple[float, float]
) -> None:
    savings = _savings(steps, {"guidance_interval": interval, "reuse_every": reuse}, every=every, window=window)
    deep: Step | None = None
    fresh, age = False, 0
    for step in savings:
        deep, age = (step, 0) if step.network == "deep" else (deep, age + 1)
        if step.network == "shallow":
            assert deep is not None
            assert age < reuse
            assert deep.both or not step.both
        assert (step.network == "whole") == (reuse == 1)
        fresh = fresh or step.gradient == "fresh"
        assert step.gradient != "reused" or fresh


@pytest.mark.parametrize("interval", [(0.5, 0.5), (-0.1, 1.0), (0.2, 1.1)])
def test_an_interval_that_is_none_is_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="guidance_interval must satisfy"):
        SamplingConfig(guidance_interval=interval)
