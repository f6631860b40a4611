"""Counter-based noise: a pure function of (seed, index, step, stream), pinned, and distributed as it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from prism_fast.sampling.noise import Stream, initial_latents, normal, uniform, view_draws


def test_pinned_values() -> None:
    """A change here changes every sample ever made: it must never happen unnoticed."""
    assert uniform(3, 5, 7, Stream.VIEW, 4).tolist() == [
        0.6542737138469784,
        0.07927138946504042,
        0.10221393053387862,
        0.6469723400997479,
    ]
    # log, sin and cos may differ in the last bit between libraries, so normals are pinned to float32's precision.
    first = normal(0, 0, 0, Stream.INITIAL, (4,))
    np.testing.assert_allclose(first, [0.11655652, -0.68353242, 0.09819598, -0.29281077], rtol=2e-7)
    wide = normal(2**63, 10**9, 1, Stream.SOLVER, (3,))
    np.testing.assert_allclose(wide, [0.00791372, -0.32432941, -0.08183337], rtol=1e-6)


def test_the_batch_does_not_matter() -> None:
    alone = initial_latents(4, [7], (4, 3, 3))
    among = initial_latents(4, [1, 7, 2**40, 3], (4, 3, 3))
    assert torch.equal(among[1], alone[0])
    assert torch.equal(initial_latents(4, [3, 2**40, 7, 1], (4, 3, 3)), among.flip(0))
    assert np.array_equal(view_draws(4, [9, 7], 3)[1], view_draws(4, [7], 3)[0])


def test_numpys_global_state_does_not_matter() -> None:
    first = normal(1, 2, 3, Stream.SOLVER, (5,))
    np.random.default_rng(0).random(10)
    torch.rand(3)
    assert np.array_equal(first, normal(1, 2, 3, Stream.SOLVER, (5,)))


def test_a_longer_draw_begins_with_the_shorter() -> None:
    assert np.array_equal(uniform(0, 1, 2, Stream.VIEW, 100)[:7], uniform(0, 1, 2, Stream.VIEW, 7))


def test_every_coordinate_of_the_key_matters_and_blocks_do_not_overlap() -> None:
    """512 numbers of each of 48 keys: one repeated 53-bit number among 24,576 has odds of 1 in 30 million."""
    keys = itertools.product((0, 1), (0, 1, 2**32), (0, 1, 999), tuple(Stream))
    draws = np.concatenate([uniform(seed, i, step, stream, 512) for seed, i, step, stream in keys])
    assert len(np.unique(draws)) == len(draws)


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 5, 5), (2, 0)])
def test_shapes_and_type(shape: tuple[int, ...]) -> None:
    values = normal(0, 1, 0, Stream.INITIAL, shape)
    assert values.shape == shape
    assert values.dtype == np.float32


def test_moments_tails_and_independence() -> None:
    """Bounds are five standard errors of the statistic for 80,000 independent normals."""
    x = initial_latents(11, range(80), (1000,)).double()
    n = x.numel()
    assert abs(x.mean()) < 5 / n**0.5
    assert abs(x.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((x**3).mean()) < 5 * (15 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 5 * (96 / n) ** 0.5
    assert abs((x.abs() > 1.959964).double().mean() - 0.05) < 5 * (0.05 * 0.95 / n) ** 0.5
    for pairs in (x[1:] * x[:-1], x[:, 1:] * x[:, :-1], x[:, :500] * x[:, 500:]):
        assert abs(pairs.mean()) < 5 / pairs.numel() ** 0.5


def test_uniform_fills_the_unit_interval() -> None:
    draws = np.concatenate([uniform(2, i, 0, Stream.VIEW, 1000) for i in range(20)])
    assert 0 <= draws.min() < 1e-3
    assert 1 - 1e-3 < draws.max() < 1
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_squared < 43.8  # 99.9 % quantile at 19 degrees of freedom
