"""What a solver is: a weighted sum of the latents, the predicted clean latents and the prediction before."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from prism_kernels import LinearUpdate

from prism_fast.sampling.noise_schedule import NoiseSchedule

# What a linear step multiplies: latents, predicted clean latents, previous prediction (0 where none is used).
Weights = tuple[float, float, float]


class Solver(ABC):
    """Integrates the probability-flow ODE over a schedule; one instance serves one batch, since it keeps history."""

    order: int

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule
        self.previous: torch.Tensor | None = None

    @abstractmethod
    def weights(self, i: int) -> Weights:
        """The step from noise level ``i`` to ``i + 1``; the third weight is of the prediction at ``i - 1``."""

    def update(self, latents: torch.Tensor, i: int) -> LinearUpdate:
        """The step for :func:`prism_kernels.guided_step`; :meth:`remember` the prediction that it was taken with."""
        weights = self.weights(i)
        return LinearUpdate(latents, weights, self.previous if weights[2] else None)

    def remember(self, denoised: torch.Tensor) -> None:
        """Keep a step's predicted clean latents for the next one."""
        self.previous = denoised

    def step(self, latents: torch.Tensor, denoised: torch.Tensor, i: int) -> torch.Tensor:
        """One step given the predicted clean latents. Shapes: all (n, c, h, w)."""
        of_latents, of_denoised, of_previous = self.weights(i)
        stepped = of_latents * latents + of_denoised * denoised
        if of_previous:
            assert self.previous is not None
            stepped = stepped + of_previous * self.previous
        self.remember(denoised)
        return stepped
