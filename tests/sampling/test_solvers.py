"""Solvers against diffusers' schedulers, and their order of convergence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from prism_fast.config import SolverName
from prism_fast.sampling.noise_schedule import NoiseSchedule, make_noise_schedule
from prism_fast.sampling.solvers import CounterNoise, make_solver

# diffusers hands tensors to numpy by the old __array__ protocol.
NUMPY_COPY = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SHAPE = (3, 4, 5, 5)
BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}

NOISE = CounterNoise(0, torch.zeros(1, dtype=torch.int64), (1, 1, 1))  # the solvers here draw none


class LinearModel:
    """A random linear prediction of (x, t), tame enough to sample with."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(5)
        size = math.prod(SHAPE[1:])
        self.weight = (torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5).to(dtype)
        self.bias = torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
        self.start = torch.randn(SHAPE, generator=generator, dtype=torch.float64).to(dtype)

    def __call__(self, x: Tensor, t: int) -> Tensor:
        y: Tensor = 0.4 * x.flatten(1) @ self.weight + (t / 1000) * self.bias
        return y.view(x.shape)


def _ours(name: SolverName, schedule: NoiseSchedule, prediction: str, model: LinearModel) -> Tensor:
    solver, x = make_solver(name, schedule, NOISE), model.start
    for i, t in enumerate(schedule.timesteps):
        alpha, sigma, out = schedule.alphas[i], schedule.sigmas[i], model(x, t)
        clean = (x - sigma * out) / alpha if prediction == "epsilon" else alpha * x - sigma * out
        x = solver.step(x, clean, i)
    return x


def _ddim(prediction: str, spacing: str) -> DDIMScheduler:
    return DDIMScheduler(
        **BETAS,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing=spacing,
    )


def _assert_near(got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Error relative to the size of the whole result, since single entries may pass through zero."""
    error = float((got.double() - expected.double()).abs().max() / expected.double().abs().max())
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"


# diffusers' DDIM steps to t - 1000 // steps. That is the next t of its own list for these pairs only; ours always goes
# to the level that the next step starts from.
@pytest.mark.parametrize(
    ("spacing", "steps"), [("trailing", n) for n in (1, 2, 20, 50)] + [("leading", n) for n in (1, 7, 20, 50)]
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim_equals_diffusers_in_float64(prediction: str, spacing: str, steps: int) -> None:
    model, scheduler = LinearModel(torch.float64), _ddim(prediction, spacing)
    schedule = make_noise_schedule(scheduler, steps)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(steps)
    x = model.start
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, int(t)), t, x).prev_sample
    _assert_near(_ours("ddim", schedule, prediction, model), x, 1e-12)


@NUMPY_COPY
@pytest.mark.parametrize("steps", [2, 7, 20, 50])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_dpmpp_2m_equals_diffusers(prediction: str, steps: int) -> None:
    """diffusers computes in float32, whatever it is given."""
    model, ddim = LinearModel(torch.float32), _ddim(prediction, "trailing")
    schedule = make_noise_schedule(ddim, steps)
    scheduler = DPMSolverMultistepScheduler(
        **BETAS,
        prediction_type=prediction,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    assert tuple(int(t) for t in scheduler.timesteps) == schedule.timesteps
    x = model.start
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, int(t)), t, x).prev_sample
    _assert_near(_ours("dpmpp_2m", schedule, prediction, model), x, 3e-5)


@NUMPY_COPY
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_euler_equals_diffusers(prediction: str, steps: int) -> None:
    model, ddim = LinearModel(torch.float32), _ddim(prediction, "trailing")
    schedule = make_noise_schedule(ddim, steps)
    scheduler = EulerDiscreteScheduler(**BETAS, prediction_type=prediction, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert tuple(int(t) for t in scheduler.timesteps) == schedule.timesteps
    y = model.start / schedule.alphas[0]  # diffusers keeps the variance-exploding x / alpha
    for t in scheduler.timesteps:
        y = scheduler.step(model(scheduler.scale_model_input(y, t), int(t)), t, y).prev_sample
    _assert_near(_ours("euler", schedule, prediction, model), y, 3e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_euler_is_ddim_up_to_rounding(prediction: str) -> None:
    model, schedule = LinearModel(torch.float64), make_noise_schedule(_ddim(prediction, "trailing"), 20)
    _assert_near(_ours("euler", schedule, prediction, model), _ours("ddim", schedule, prediction, model), 1e-11)


def test_dpmpp_2m_is_not_first_order() -> None:
    """Guards the comparison above: with the history ignored, 2M would be DDIM."""
    model, schedule = LinearModel(torch.float64), make_noise_schedule(_ddim("epsilon", "trailing"), 20)
    first, second = (_ours(name, schedule, "epsilon", model) for name in ("ddim", "dpmpp_2m"))
    assert float((first - second).abs().max() / first.abs().max()) > 1e-3


# Data N(MEAN, SPREAD²): the posterior mean and the probability-flow ODE are known in closed form.
MEAN, SPREAD = 0.7, 0.4


def _log_snr_grid(steps: int, first: float = -3.0, last: float = 2.5) -> NoiseSchedule:
    half = np.linspace(first, last, steps + 1)  # log(alpha / sigma)
    alphas, sigmas = 1 / np.sqrt(1 + np.exp(-2 * half)), 1 / np.sqrt(1 + np.exp(2 * half))
    return NoiseSchedule(tuple(range(steps, 0, -1)), tuple(alphas.tolist()), tuple(sigmas.tolist()))


def _gaussian_error(name: SolverName, steps: int) -> float:
    schedule = _log_snr_grid(steps)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(9, 1, 1, 1)
    widths = [math.hypot(a * SPREAD, s) for a, s in zip(schedule.alphas, schedule.sigmas, strict=True)]
    exact = schedule.alphas[-1] * MEAN + widths[-1] / widths[0] * (x - schedule.alphas[0] * MEAN)
    solver = make_solver(name, schedule, NOISE)
    for i in range(steps):
        alpha = schedule.alphas[i]
        x = solver.step(x, MEAN + alpha * SPREAD**2 / widths[i] ** 2 * (x - alpha * MEAN), i)
    return float((x - exact).abs().max())


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence(name: SolverName, order: int) -> None:
    counts = np.array([32, 64, 128, 256, 512])
    errors = np.array([_gaussian_error(name, int(n)) for n in counts])
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)
    assert make_solver(name, _log_snr_grid(2), NOISE).order == order


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m"])
def test_the_last_step_returns_the_clean_latents(name: SolverName) -> None:
    schedule = make_noise_schedule(_ddim("epsilon", "trailing"), 4)
    assert (schedule.alphas[-1], schedule.sigmas[-1]) == (1.0, 0.0)
    solver = make_solver(name, schedule, NOISE)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    clean = x.flip(0)
    for i in range(3):
        solver.step(x, clean, i)
    torch.testing.assert_close(solver.step(x, clean, 3), clean, rtol=0, atol=1e-12)


def test_grid_is_variance_preserving_and_falls() -> None:
    schedule = make_noise_schedule(_ddim("epsilon", "trailing"), 20)
    assert len(schedule) == 20
    assert len(schedule.alphas) == len(schedule.sigmas) == 21
    for alpha, sigma in zip(schedule.alphas, schedule.sigmas, strict=True):
        assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-12)
    assert all(a > b for a, b in zip(schedule.sigmas, schedule.sigmas[1:], strict=False))
    assert all(a > b for a, b in zip(schedule.timesteps, schedule.timesteps[1:], strict=False))
