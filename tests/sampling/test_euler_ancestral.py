"""Euler ancestral against diffusers with the same noise, against a Gaussian's marginals, and against its weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from diffusers.schedulers import scheduling_euler_ancestral_discrete as theirs
from prism_kernels import counter_noise, guided_step
from torch import Tensor

from prism_fast.sampling.noise_schedule import NoiseSchedule, make_noise_schedule
from prism_fast.sampling.solvers.euler_ancestral import CounterNoise, EulerAncestral
from tests.sampling.test_solvers import BETAS, NUMPY_COPY, LinearModel, _assert_near, _ddim, _log_snr_grid


def _noise(shape: tuple[int, ...], dtype: torch.dtype, i: int) -> Tensor:
    indices = torch.arange(shape[0])
    return counter_noise(5, indices, i, shape[1:]).to(dtype)


@NUMPY_COPY
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_equals_diffusers_with_the_same_noise(prediction: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ddim = LinearModel(torch.float32), _ddim(prediction, "trailing")
    schedule = make_noise_schedule(ddim, steps)
    scheduler = EulerAncestralDiscreteScheduler(**BETAS, prediction_type=prediction, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert tuple(int(t) for t in scheduler.timesteps) == schedule.timesteps
    shape = tuple(model.start.shape)
    y = model.start / schedule.alphas[0]  # diffusers keeps the variance-exploding x / alpha
    for i, t in enumerate(scheduler.timesteps):
        monkeypatch.setattr(theirs, "randn_tensor", lambda *_, i=i, **__: _noise(shape, torch.float32, i))
        y = scheduler.step(model(scheduler.scale_model_input(y, t), int(t)), t, y).prev_sample
    solver, x = EulerAncestral(schedule, lambda i: _noise(shape, torch.float32, i)), model.start
    for i, t in enumerate(schedule.timesteps):
        alpha, sigma, out = schedule.alphas[i], schedule.sigmas[i], model(x, t)
        x = solver.step(x, (x - sigma * out) / alpha if prediction == "epsilon" else alpha * x - sigma * out, i)
    _assert_near(x, y, 3e-5)


def test_a_known_sample_stays_on_its_marginal() -> None:
    """Given x₀ itself, noise at every level has the variance that the forward process gives it: 1 ± 5/√(n/2)."""
    n, schedule = 20000, _log_snr_grid(6)
    shape, clean = (n, 1, 1, 1), 0.3
    solver = EulerAncestral(schedule, lambda i: _noise(shape, torch.float64, i + 1))
    x = schedule.alphas[0] * clean + schedule.sigmas[0] * _noise(shape, torch.float64, 0)
    for i in range(len(schedule)):
        x = solver.step(x, torch.full_like(x, clean), i)
        noise = (x - schedule.alphas[i + 1] * clean) / schedule.sigmas[i + 1]
        assert float(noise.var()) == pytest.approx(1, abs=5 / math.sqrt(n / 2))
        assert float(noise.mean()) == pytest.approx(0, abs=5 / math.sqrt(n))


MEAN, SPREAD = 0.7, 0.4


def _gain(schedule: NoiseSchedule, i: int) -> float:
    """Slope of the exact denoiser of data N(MEAN, SPREAD²)."""
    alpha, sigma = schedule.alphas[i], schedule.sigmas[i]
    return alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)


def _final_variance(steps: int) -> tuple[NoiseSchedule, float]:
    """Every step is linear, so the samples' variance is a recursion: z' = (a + b · gain) z + d · noise."""
    schedule = _log_snr_grid(steps, first=-4.0, last=4.0)
    solver = EulerAncestral(schedule, lambda i: torch.zeros(()))
    variance = schedule.alphas[0] ** 2 * SPREAD**2 + schedule.sigmas[0] ** 2
    for i in range(steps):
        a, b, _ = solver.weights(i)
        variance = (a + b * _gain(schedule, i)) ** 2 * variance + solver.noise_weight(i) ** 2
    return schedule, variance


def test_gaussian_data_gets_its_variance() -> None:
    """The marginal's error falls like one over the steps: the noise of a step does not know how unsure x₀ is."""
    counts, errors = np.array([64, 128, 256, 512, 1024]), []
    for steps in counts:
        schedule, variance = _final_variance(int(steps))
        errors.append(abs(variance / (schedule.alphas[-1] ** 2 * SPREAD**2 + schedule.sigmas[-1] ** 2) - 1))
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(1, abs=0.1)
    assert errors[-1] < 0.02


def test_samples_have_the_variance_of_the_recursion() -> None:
    n, steps = 20000, 16
    schedule, variance = _final_variance(steps)
    solver = EulerAncestral(schedule, lambda i: _noise((n, 1, 1, 1), torch.float64, i + 1))
    start = math.hypot(schedule.alphas[0] * SPREAD, schedule.sigmas[0])
    x = schedule.alphas[0] * MEAN + start * _noise((n, 1, 1, 1), torch.float64, 0)
    for i in range(steps):
        x = solver.step(x, MEAN + _gain(schedule, i) * (x - schedule.alphas[i] * MEAN), i)
    assert float(x.mean()) == pytest.approx(schedule.alphas[-1] * MEAN, abs=5 * math.sqrt(variance / n))
    assert float(x.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))


ALPHAS = (0.1, 0.4, 0.7, 0.9, 1.0)
GRID = NoiseSchedule((900, 600, 300, 100), ALPHAS, tuple((1 - a * a) ** 0.5 for a in ALPHAS))


def _counters(*indices: int) -> CounterNoise:
    return CounterNoise(11, torch.tensor(indices), (4, 3, 3))


def test_the_fused_step_is_the_step() -> None:
    """It draws the same noise by itself."""
    generator = torch.Generator().manual_seed(0)
    solver = EulerAncestral(GRID, _counters(3, 2**33))
    z = torch.randn(2, 4, 3, 3, generator=generator)
    still, off = torch.zeros_like(z), torch.zeros(2, dtype=torch.bool)
    for i in range(len(GRID)):
        clean = torch.randn(z.shape, generator=generator)
        expected = solver.step(z, clean, i)
        fused = guided_step(clean, still, torch.ones(2), off, 1.0, update=solver.update(z, i))
        assert fused.latents is not None
        torch.testing.assert_close(fused.latents, expected, rtol=1e-5, atol=1e-6)
        assert (solver.noise_weight(i) == 0) == (i == len(GRID) - 1)
        z = expected
    torch.testing.assert_close(z, clean, rtol=0, atol=1e-6)


def test_other_noise_is_not_dropped_silently() -> None:
    solver = EulerAncestral(GRID, lambda i: torch.zeros(1, 4, 3, 3))
    with pytest.raises(TypeError, match="CounterNoise"):
        solver.update(torch.zeros(1, 4, 3, 3), 0)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    def run(*indices: int) -> Tensor:
        solver = EulerAncestral(GRID, _counters(*indices))
        z = counter_noise(11, torch.tensor(indices), 0, (4, 3, 3))
        for i in range(len(GRID)):
            z = solver.step(z, torch.tanh(z), i)
        return z

    assert torch.equal(run(4, 9, 1)[1], run(9)[0])
