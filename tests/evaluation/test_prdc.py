"""Precision, recall, density, coverage against a naive oracle and known extremes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prism_fast.errors import InputError
from prism_fast.evaluation.prdc import prdc


def _oracle(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    """Loops over pairs, written from the papers' equations."""

    def distance(a: Tensor, b: Tensor) -> float:
        return float((a - b).square().sum().sqrt())

    def radius(points: Tensor, i: int) -> float:
        return sorted(distance(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]

    r_real = [radius(real, i) for i in range(len(real))]
    r_fake = [radius(fake, j) for j in range(len(fake))]
    d = [[distance(x, y) for y in fake] for x in real]
    n, m = len(real), len(fake)
    precision = sum(any(d[i][j] <= r_real[i] for i in range(n)) for j in range(m)) / m
    recall = sum(any(d[i][j] <= r_fake[j] for j in range(m)) for i in range(n)) / n
    density = sum(d[i][j] <= r_real[i] for i in range(n) for j in range(m)) / (k * m)
    coverage = sum(any(d[i][j] <= r_real[i] for j in range(m)) for i in range(n)) / n
    return precision, recall, density, coverage


@pytest.mark.parametrize("chunk_bytes", [1, 1000, 2**20])
@pytest.mark.parametrize(("n_real", "n_fake", "k"), [(23, 31, 3), (31, 17, 5), (6, 6, 5)])
def test_oracle(n_real: int, n_fake: int, k: int, chunk_bytes: int) -> None:
    generator = torch.Generator().manual_seed(n_real)
    real = torch.randn(n_real, 4, generator=generator, dtype=torch.float64)
    fake = torch.randn(n_fake, 4, generator=generator, dtype=torch.float64) * 0.8 + 0.7
    result = prdc(real, fake, k=k, chunk_bytes=chunk_bytes)
    found = (result.precision, result.recall, result.density, result.coverage)
    assert found == pytest.approx(_oracle(real, fake, k))
    assert (result.k, result.n_real, result.n_fake) == (k, n_real, n_fake)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_sets(dtype: torch.dtype) -> None:
    points = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    result = prdc(points, points[torch.randperm(50)], dtype=dtype)
    assert (result.precision, result.recall, result.coverage) == (1.0, 1.0, 1.0)
    # Every ball holds its centre and k neighbours.
    assert result.density == pytest.approx(6 / 5)


def test_disjoint_sets() -> None:
    generator = torch.Generator().manual_seed(2)
    real, fake = torch.randn(40, 8, generator=generator), torch.randn(30, 8, generator=generator) + 100
    result = prdc(real, fake)
    assert (result.precision, result.recall, result.density, result.coverage) == (0.0, 0.0, 0.0, 0.0)


def test_mode_collapse_is_precise_but_recalls_little() -> None:
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(200, 4, generator=generator)
    fake = torch.randn(200, 4, generator=generator) * 0.05
    result = prdc(real, fake)
    assert result.precision > 0.95
    assert result.recall < 0.1


def test_coinciding_points_are_inside() -> None:
    result = prdc(torch.ones(8, 3), torch.ones(8, 3))
    assert (result.precision, result.recall, result.coverage) == (1.0, 1.0, 1.0)


def test_bad_input() -> None:
    good = torch.randn(10, 3)
    broken = good.clone()
    broken[3, 1] = float("nan")
    for real, fake, k, words in (
        (good[:5], good, 5, "at least 6 real samples, got 5"),
        (good, good[:5], 5, "at least 6 fake samples, got 5"),
        (good, good[:, :2], 5, "real 3, fake 2"),
        (good, broken, 5, "fake features hold NaN"),
        (good.long(), good, 5, "floats"),
        (good, good, 0, "k must be"),
    ):
        with pytest.raises(InputError, match=words):
            prdc(real, fake, k=k)
    with pytest.raises(InputError, match="float32 or float64"):
        prdc(good, good, dtype=torch.float16)
