"""Noise schedules of all kinds: right levels, or one clear line."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from prism_fast.config import SolverName
from prism_fast.errors import DataError, InputError
from prism_fast.sampling.noise_schedule import NoiseSchedule, make_noise_schedule
from prism_fast.sampling.solvers import CounterNoise, make_solver

BETAS: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SHAPE = (2, 4, 3, 3)
NOISE = CounterNoise(0, torch.arange(2), (4, 3, 3))


def _ddim(**changes: Any) -> Any:
    return diffusers.DDIMScheduler(**BETAS | {"clip_sample": False, "timestep_spacing": "trailing"} | changes)


def _zero_snr(rescale: bool = True, **changes: Any) -> Any:
    return _ddim(rescale_betas_zero_snr=rescale, prediction_type="v_prediction", **changes)


def _predict(x: torch.Tensor, t: int) -> torch.Tensor:
    """Tame, and different at each time."""
    return 0.3 * x.roll(1, -1) + t / 2000


def _ours(solver: SolverName, schedule: NoiseSchedule) -> torch.Tensor:
    made, x = make_solver(solver, schedule, NOISE), _start()
    for i, t in enumerate(schedule.timesteps):
        clean = schedule.alphas[i] * x - schedule.sigmas[i] * _predict(x, t)
        x = made.step(x, clean, i)
        made.remember(clean)
    return x


def _start() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_ddim_steps_from_zero_snr_as_diffusers_does(steps: int) -> None:
    scheduler = _zero_snr()
    schedule = make_noise_schedule(scheduler, steps, "ddim")
    assert (schedule.alphas[0], schedule.sigmas[0]) == (0.0, 1.0)
    assert make_noise_schedule(scheduler, steps) == schedule
    scheduler.set_timesteps(steps)
    x = _start()
    for t in scheduler.timesteps:
        x = scheduler.step(_predict(x, int(t)), t, x).prev_sample
    torch.testing.assert_close(_ours("ddim", schedule), x, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("steps", [2, 7, 20])
def test_dpmpp_2m_steps_from_zero_snr_as_diffusers_does(steps: int) -> None:
    schedule = make_noise_schedule(_zero_snr(), steps, "dpmpp_2m")
    assert schedule.alphas[0] == 2.0**-12
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    assert tuple(map(int, scheduler.timesteps)) == schedule.timesteps
    x = _start()
    for t in scheduler.timesteps:
        x = scheduler.step(_predict(x, int(t)), t, x).prev_sample
    torch.testing.assert_close(_ours("dpmpp_2m", schedule), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler", "euler_ancestral"])
def test_every_solver_ends_from_zero_snr(solver: SolverName) -> None:
    made = _ours(solver, make_noise_schedule(_zero_snr(), 20, solver))
    assert torch.isfinite(made).all()
    assert made.abs().max() < 10


def test_solvers_agree_from_zero_snr() -> None:
    first, second = (_ours(s, make_noise_schedule(_zero_snr(), 200, s)) for s in ("ddim", "euler"))
    torch.testing.assert_close(first, second, rtol=0, atol=5e-3)


def test_a_grid_that_leaves_zero_snr_out_is_what_it_was() -> None:
    leading = make_noise_schedule(_zero_snr(timestep_spacing="leading"), 10, "dpmpp_2m")
    assert leading == make_noise_schedule(_zero_snr(timestep_spacing="leading"), 10)
    assert leading.alphas[0] > 2.0**-12


def test_epsilon_from_zero_snr_is_refused() -> None:
    with pytest.raises(DataError, match=r"rescale_betas_zero_snr.*'epsilon'.*v_prediction"):
        make_noise_schedule(_ddim(rescale_betas_zero_snr=True), 10)


@pytest.mark.parametrize(("offset", "steps"), [(1, 1000), (2, 999), (600, 2)])
def test_steps_beyond_the_last_timestep_are_refused(offset: int, steps: int) -> None:
    with pytest.raises(InputError, match=rf"sampling.steps is {steps}.*'leading' and steps_offset {offset}"):
        make_noise_schedule(_ddim(timestep_spacing="leading", steps_offset=offset), steps)


@pytest.mark.parametrize("steps", [1, 20, 500, 999])
def test_an_offset_that_fits_is_kept(steps: int) -> None:
    schedule = make_noise_schedule(_ddim(timestep_spacing="leading", steps_offset=1), steps)
    assert schedule.timesteps[-1] == 1
    assert len(schedule) == steps


def test_more_steps_than_noise_levels_are_refused() -> None:
    with pytest.raises(InputError, match=r"sampling.steps is 1001, .* has 1000 noise levels"):
        make_noise_schedule(_ddim(), 1001)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_any_number_of_steps_gives_as_many_falling_timesteps(spacing: str) -> None:
    """Rounding gave 62 counts of trailing steps, 61 being the first, one more: to timestep -1, which is pure noise."""
    scheduler = _ddim(timestep_spacing=spacing)
    for steps in (*range(1, 130), 201, 457, 999, 1000):
        schedule = make_noise_schedule(scheduler, steps)
        assert len(schedule) == steps
        assert all(a > b for a, b in zip(schedule.timesteps, schedule.timesteps[1:], strict=False))
        assert all(a < b for a, b in zip(schedule.alphas, schedule.alphas[1:], strict=False))


def test_trained_betas_are_honoured_and_counted() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000).tolist()
    alphas = make_noise_schedule(_ddim(trained_betas=betas), 4).alphas
    assert alphas == make_noise_schedule(_ddim(beta_schedule="linear", beta_start=1e-4, beta_end=0.02), 4).alphas
    with pytest.raises(DataError, match="10 trained_betas and num_train_timesteps = 1000"):
        make_noise_schedule(_ddim(trained_betas=betas[:10]), 4)


def test_betas_that_ddim_does_not_know_are_one_line() -> None:
    with pytest.raises(DataError, match=r"noise levels cannot be made: .*laplace"):
        make_noise_schedule(diffusers.DDPMScheduler(beta_schedule="laplace"), 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"trained_betas": [float("nan")] * 1000},
        {"trained_betas": [0.5] * 1000},
        {"trained_betas": [0.0] * 1000},
        {"beta_schedule": "linear", "beta_start": -0.1},
        {"beta_schedule": "linear", "beta_end": 3.0},
        {"beta_schedule": "linear", "beta_start": 0.0, "timestep_spacing": "leading"},
    ],
    ids=["nan", "too much", "none", "negative", "above one", "zero at the first timestep"],
)
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
def test_betas_that_give_no_levels_are_refused(changes: dict[str, Any], solver: str) -> None:
    with pytest.raises(DataError, match="the scheduler's betas give no noise levels: alpha squared is") as caught:
        make_noise_schedule(_zero_snr(rescale=False, **changes), 12, solver)
    assert "\n" not in str(caught.value)
