"""The noise levels that a sampler visits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


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


def make_noise_schedule(scheduler: Any, steps: int) -> NoiseSchedule:
    """The noise schedule of a diffusers scheduler: its betas, its spacing of timesteps."""
    from diffusers import DDIMScheduler

    ddim = DDIMScheduler.from_config(scheduler.config)
    ddim.set_timesteps(steps)
    timesteps = [int(t) for t in ddim.timesteps]
    products = ddim.alphas_cumprod.double()[torch.tensor(timesteps)]
    alphas = [*products.sqrt().tolist(), 1.0]
    sigmas = [*(1 - products).sqrt().tolist(), 0.0]
    return NoiseSchedule(tuple(timesteps), tuple(alphas), tuple(sigmas))
