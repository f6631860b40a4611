"""The guided step: the promised length, and samples that must stay as they were."""

from __future__ import annotations

import pytest
import torch
from prism_kernels import KernelInputError, guided_step
from torch import Tensor

SCALE = 0.3


def _inputs(n: int = 5, shape: tuple[int, ...] = (4, 7, 3)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    denoised = torch.randn(n, *shape, generator=generator)
    # Gradients of very different lengths: the step must not depend on them.
    sizes = 10.0 ** torch.linspace(-4, 2, n).view(n, *(1,) * len(shape))
    gradient = torch.randn(n, *shape, generator=generator) * sizes
    return denoised, gradient, torch.rand(n, generator=generator) + 0.1, torch.ones(n, dtype=torch.bool)


def _rms(x: Tensor) -> Tensor:
    return x.double().square().flatten(1).mean(1).sqrt()


def test_moves_by_scale_times_the_correction_downhill() -> None:
    denoised, gradient, correction, active = _inputs()
    step = guided_step(denoised, gradient, correction, active, SCALE)
    moved = (step.denoised - denoised).double()
    assert step.healthy.all()
    torch.testing.assert_close(_rms(moved), SCALE * correction.double(), rtol=1e-5, atol=0)
    cosine = torch.cosine_similarity(moved.flatten(1), gradient.double().flatten(1))
    torch.testing.assert_close(cosine, -torch.ones_like(cosine), rtol=0, atol=1e-6)


def test_matches_the_formula_in_float64() -> None:
    denoised, gradient, correction, active = _inputs(7)
    rho = SCALE * correction.double() / _rms(gradient)
    expected = denoised.double() - rho.view(-1, 1, 1, 1) * gradient.double()
    got = guided_step(denoised, gradient, correction, active, SCALE).denoised
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)], ids=str)
def test_half_precision_rounds_once(dtype: torch.dtype, tolerance: float) -> None:
    denoised, gradient, correction, active = _inputs()
    denoised, gradient = denoised.to(dtype), gradient.to(dtype)
    rho = SCALE * correction.double() / _rms(gradient)
    expected = denoised.double() - rho.view(-1, 1, 1, 1) * gradient.double()
    got = guided_step(denoised, gradient, correction, active, SCALE).denoised
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=tolerance * 1.01, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e6, 1e30])
def test_an_unusable_gradient_touches_nobody(bad: float) -> None:
    denoised, gradient, correction, active = _inputs()
    clean = guided_step(denoised, gradient, correction, active, SCALE)
    spoiled = gradient.clone()
    spoiled[2, 1, 3, 2] = bad
    step = guided_step(denoised, spoiled, correction, active, SCALE)
    assert step.healthy.tolist() == [True, True, False, True, True]
    assert torch.equal(step.denoised[2], denoised[2])
    keep = torch.arange(5) != 2
    assert torch.equal(step.denoised[keep], clean.denoised[keep])


def test_inactive_samples_are_untouched_and_still_reported_healthy() -> None:
    denoised, gradient, correction, active = _inputs()
    active[[0, 3]] = False
    step = guided_step(denoised, gradient, correction, active, SCALE)
    every = guided_step(denoised, gradient, correction, torch.ones_like(active), SCALE)
    assert torch.equal(step.denoised[[0, 3]], denoised[[0, 3]])
    assert torch.equal(step.denoised[[1, 2, 4]], every.denoised[[1, 2, 4]])
    assert step.healthy.all()


def test_the_limit_is_the_gradients_rms() -> None:
    denoised, _, correction, active = _inputs(2)
    gradient = torch.ones_like(denoised)
    gradient[1] *= 2
    step = guided_step(denoised, gradient, correction, active, SCALE, max_gradient_rms=1.5)
    assert step.healthy.tolist() == [True, False]


def test_a_zero_gradient_and_a_zero_scale_move_nothing() -> None:
    denoised, gradient, correction, active = _inputs()
    still = guided_step(denoised, torch.zeros_like(gradient), correction, active, SCALE)
    assert torch.equal(still.denoised, denoised)
    assert still.healthy.all()
    assert torch.equal(guided_step(denoised, gradient, correction, active, 0.0).denoised, denoised)


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1, 1)), (3, (4, 13, 11)), (0, (4, 8, 8))])
def test_odd_shapes(n: int, shape: tuple[int, ...]) -> None:
    denoised, gradient, correction, active = _inputs(n, shape)
    step = guided_step(denoised, gradient, correction, active, SCALE)
    assert step.denoised.shape == (n, *shape)
    assert step.healthy.shape == (n,)
    torch.testing.assert_close(_rms(step.denoised - denoised), SCALE * correction.double(), rtol=1e-4, atol=1e-6)


def test_non_contiguous() -> None:
    denoised, gradient, correction, active = _inputs()
    expected = guided_step(denoised, gradient, correction, active, SCALE).denoised
    channels_last = gradient.to(memory_format=torch.channels_last)
    assert not channels_last.is_contiguous()
    got = guided_step(denoised, channels_last, correction, active, SCALE).denoised
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


def test_bad_input() -> None:
    denoised, gradient, correction, active = _inputs()
    with pytest.raises(KernelInputError, match=r"\(4, 4, 7, 3\)"):
        guided_step(denoised, gradient[1:], correction, active, SCALE)
    with pytest.raises(KernelInputError, match=r"\(5, 1\)"):
        guided_step(denoised, gradient, correction[:, None], active, SCALE)
    with pytest.raises(KernelInputError, match=r"\(4,\)"):
        guided_step(denoised, gradient, correction, active[1:], SCALE)
    with pytest.raises(KernelInputError, match="float32"):
        guided_step(denoised, gradient, correction, active.float(), SCALE)
