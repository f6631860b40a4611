"""The Vendi score and the mean distance, against brute force, hand values and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from prism_fast.errors import InputError
from prism_fast.evaluation.vendi import mean_pairwise_distance, vendi_score


def _kernel(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines, one pair after the other."""
    return np.array([[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in rows] for a in rows])


def _oracle(rows: NDArray[np.float64]) -> tuple[float, float]:
    """Written from the definitions, by a general eigenvalue routine and a loop over pairs."""
    kernel, n = _kernel(rows), len(rows)
    eigenvalues = np.linalg.eigvals(kernel / n).real
    entropy = -sum(v * math.log(v) for v in eigenvalues if v > 1e-14)
    pairs = [1 - kernel[i, j] for i in range(n) for j in range(i)]
    return math.exp(entropy), sum(pairs) / len(pairs)


def _random(seed: int, n: int, d: int, kind: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(kind)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 7), (7, 3), (12, 12), (40, 5), (5, 40)])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_oracle(n: int, d: int, shift: float) -> None:
    rows = _random(n, n, d) + shift
    score, distance = _oracle(rows.numpy())
    assert vendi_score(rows) == pytest.approx(score, rel=1e-9)
    assert mean_pairwise_distance(rows) == pytest.approx(distance, rel=1e-9, abs=1e-12)
    assert vendi_score(rows.numpy()) == vendi_score(rows)


def test_hand_values() -> None:
    assert vendi_score(torch.eye(6)) == pytest.approx(6)
    assert mean_pairwise_distance(torch.eye(6)) == pytest.approx(1)
    assert vendi_score(torch.full((6, 3), 0.3)) == pytest.approx(1)
    assert mean_pairwise_distance(torch.full((6, 3), 0.3)) == pytest.approx(0, abs=1e-15)
    assert vendi_score(torch.tensor([[2.0, -3.0]])) == 1.0
    # Two rows with cosine c have eigenvalues (1 + c)/2 and (1 - c)/2; here c = 0.6.
    assert vendi_score(torch.tensor([[1.0, 0.0], [3.0, 4.0]])) == pytest.approx(0.8**-0.8 * 0.2**-0.2)
    # One direction three times, an orthogonal one once: weights 3/4 and 1/4.
    assert vendi_score(torch.eye(2)[[0, 0, 0, 1]]) == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    assert mean_pairwise_distance(torch.eye(2)[[0, 0, 0, 1]]) == pytest.approx(3 / 6)
    assert mean_pairwise_distance(torch.tensor([[1.0, 1.0], [-2.0, -2.0]])) == pytest.approx(2)


def test_rows_of_zeros_are_equal_to_each_other_and_orthogonal_to_the_rest() -> None:
    assert vendi_score(torch.zeros(4, 3)) == pytest.approx(1)
    assert mean_pairwise_distance(torch.zeros(4, 3)) == 0
    mixed = torch.tensor([[0.0, 0.0], [0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    expected = torch.eye(3)[[0, 0, 1, 2]]
    assert vendi_score(mixed) == pytest.approx(vendi_score(expected))
    assert mean_pairwise_distance(mixed) == pytest.approx(mean_pairwise_distance(expected))


@pytest.mark.parametrize("scale", [1e-310, 1e-160, 1e160, 1e305])
def test_neither_overflows_nor_underflows(scale: float) -> None:
    rows = _random(1, 5, 3)
    assert vendi_score(rows * scale) == pytest.approx(vendi_score(rows), rel=1e-3)
    assert mean_pairwise_distance(rows * scale) == pytest.approx(mean_pairwise_distance(rows), rel=1e-3)


def test_near_rows_keep_their_digits() -> None:
    """Two directions at an angle of 1e-6: one minus their cosine is 5e-13, which a sum of cosines would round away."""
    rows = torch.tensor([[1.0, 0.0], [math.cos(1e-6), math.sin(1e-6)]], dtype=torch.float64)
    assert mean_pairwise_distance(rows) == pytest.approx(5e-13, rel=1e-3)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_low_precision_is_computed_in_float64(kind: torch.dtype) -> None:
    rows = _random(2, 20, 6, kind)
    assert vendi_score(rows) == vendi_score(rows.double())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.floats(-2, 2))
def test_what_it_does_not_depend_on(seed: int, n: int, d: int, copies: int, shift: float) -> None:
    rows = _random(seed, n, d).round(decimals=1) + shift
    score = vendi_score(rows)
    assert 1 <= score <= n
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert vendi_score(rows[order]) == pytest.approx(score)
    assert vendi_score(rows.repeat(copies, 1)) == pytest.approx(score)
    lengths = torch.linspace(0.1, 10, n, dtype=torch.float64)[:, None]
    assert vendi_score(rows * lengths) == pytest.approx(score)
    assert 0 <= mean_pairwise_distance(rows.repeat(2, 1)) <= 2


def test_bad_input() -> None:
    broken = torch.ones(3, 2)
    broken[1, 1] = float("nan")
    for features, words in (
        (broken, "NaN or infinity"),
        (torch.ones(3), r"floats of shape \(n, d\), got torch.float32 \(3,\)"),
        (torch.ones(3, 2).long(), "got torch.int64"),
        (torch.ones(0, 2), r"\(0, 2\)"),
        (torch.ones(2, 0), r"\(2, 0\)"),
    ):
        for measure in (vendi_score, mean_pairwise_distance):
            with pytest.raises(InputError, match=words):
                measure(features)
    with pytest.raises(InputError, match="at least 2 of them, got 1"):
        mean_pairwise_distance(torch.ones(1, 2))
