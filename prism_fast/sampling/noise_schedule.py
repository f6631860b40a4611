"""The noise levels that a sampler visits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from prism_fast.errors import DataError, InputError


@dataclass(frozen=True)
class NoiseSchedule:
    """Steps from pure noise to the clean latent.

    ``alphas`` and ``sigmas`` have one entry more than ``timesteps``: the last is the clean end (1, 0).
    ``x_t = alpha · x_0 + sigma · noise`` (variance preserving).
    """

    timesteps: tuple[int, ...]
    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.timesteps)


#: Squared alpha in place of zero where a solver divides by alpha; diffusers' solvers take the same.
_ALMOST_ZERO_SNR = 2.0**-24
#: The solver that takes a step from alpha = 0, pure noise, exactly.
_EXACT_AT_ZERO_SNR = "ddim"


def make_noise_schedule(scheduler: Any, steps: int, solver: str = _EXACT_AT_ZERO_SNR) -> NoiseSchedule:
    """The noise schedule of a diffusers scheduler: its betas, its spacing of timesteps (as DDIM rounds them).

    With a zero terminal SNR (``rescale_betas_zero_snr``) the first alpha is 0. DDIM steps from there; for another
    ``solver`` it is 2^-12, since they divide by it. Reference: Lin et al. 2023, sections 3.1 to 3.3.

    Raises:
        InputError: ``steps`` do not fit the scheduler's timesteps.
        DataError: the scheduler has no such betas, they give no levels to step between, or the network predicts noise
            where there is nothing else.
    """
    ddim = _ddim(scheduler, steps)
    trained = int(ddim.config.num_train_timesteps)
    timesteps = [t for t in map(int, ddim.timesteps) if t >= 0]  # rounding can append a step below 0
    if max(timesteps) >= trained:
        raise InputError(
            f"sampling.steps is {steps}, which reaches timestep {max(timesteps)} of 0 to {trained - 1} with the "
            f"scheduler's timestep_spacing {ddim.config.timestep_spacing!r} and steps_offset "
            f"{ddim.config.steps_offset}; choose fewer steps"
        )
    products = ddim.alphas_cumprod.double()[torch.tensor(timesteps)]
    _require_levels(products.tolist(), timesteps)
    if products[0] == 0:
        _require_v_prediction(scheduler)
        if solver != _EXACT_AT_ZERO_SNR:
            products[0] = _ALMOST_ZERO_SNR
    alphas = [*products.sqrt().tolist(), 1.0]
    sigmas = [*(1 - products).sqrt().tolist(), 0.0]
    return NoiseSchedule(tuple(timesteps), tuple(alphas), tuple(sigmas))


def _ddim(scheduler: Any, steps: int) -> Any:
    from diffusers import DDIMScheduler

    config = scheduler.config
    trained = config.get("num_train_timesteps", 0)
    if steps > trained:
        raise InputError(
            f"sampling.steps is {steps}, but the scheduler has {trained} noise levels (num_train_timesteps); choose at "
            f"most {trained}"
        )
    try:
        ddim = DDIMScheduler.from_config(config)
        ddim.set_timesteps(steps)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise DataError(f"the scheduler's noise levels cannot be made: {str(error).splitlines()[0]}") from error
    if len(ddim.alphas_cumprod) != trained:
        raise DataError(
            f"the scheduler has {len(ddim.alphas_cumprod)} trained_betas and num_train_timesteps = {trained}; these "
            "must be equal"
        )
    return ddim


def _require_levels(products: list[float], timesteps: list[int]) -> None:
    """Refuse squared alphas between which no solver can step: not a number, none of [0, 1), or not growing."""
    previous = -1.0
    for t, product in zip(timesteps, products, strict=True):
        if not max(0.0, previous) <= product < 1 or product == previous:
            raise DataError(
                f"the scheduler's betas give no noise levels: alpha squared is {product:g} at timestep {t}, expected "
                "from 0 to below 1, and less at each later timestep; mend beta_start, beta_end or trained_betas"
            )
        previous = product


def _require_v_prediction(scheduler: Any) -> None:
    prediction = scheduler.config.get("prediction_type")
    if prediction != "v_prediction":
        raise DataError(
            f"the scheduler starts at pure noise (rescale_betas_zero_snr), of which a prediction of {prediction!r} "
            "says nothing; expected prediction_type v_prediction, or rescale_betas_zero_snr false"
        )
