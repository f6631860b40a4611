"""Euler ancestral: an Euler step further down than asked, and fresh noise back up; one network call a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from prism_kernels import LinearUpdate, UpdateNoise, counter_noise

from prism_fast.sampling.noise import Stream
from prism_fast.sampling.noise_schedule import NoiseSchedule
from prism_fast.sampling.solvers.base import Solver, Weights


@dataclass(frozen=True)
class CounterNoise:
    """Noise of each step that depends on seed, sample and step alone; a fused update draws it in its kernel.

    Shapes: indices (n,), on the latents' device; shape is (c, h, w).
    """

    seed: int
    indices: torch.Tensor
    shape: tuple[int, int, int]

    def __call__(self, i: int) -> torch.Tensor:
        """Standard normals of step ``i``, (n, c, h, w), float32."""
        return counter_noise(self.seed, self.indices, i, self.shape, stream=Stream.SOLVER)

    def weighted(self, i: int, weight: float) -> UpdateNoise:
        """The same numbers, for ``prism_kernels.LinearUpdate``."""
        return UpdateNoise(self.seed, self.indices, i, weight, stream=Stream.SOLVER)


class EulerAncestral(Solver):
    """``y' = y + (s_down - s)(y - x₀) / s + s_up · ε`` with ``y = x / α``, ``s = σ / α``, and η = 1.

    ``s_up² = s'² (s² - s'²) / s²`` and ``s_down² = s'² - s_up²``, hence ``s_down = s'² / s``. It is the posterior of
    the forward process given x₀, so the marginal at every level is right whenever x₀ is; the last step adds nothing.
    It integrates the reverse SDE, not the ODE: ``order`` is of the mean. ``noise`` maps a step to standard normals
    (n, c, h, w).

    Reference: Song et al. 2021, DDIM, eq. 16 with η = 1 (Ho et al. 2020); k-diffusion names it so.
    """

    order = 1

    def __init__(self, schedule: NoiseSchedule, noise: Callable[[int], torch.Tensor]) -> None:
        super().__init__(schedule)
        self.noise = noise

    def weights(self, i: int) -> Weights:
        """The deterministic part of a step."""
        s, s_after = self._levels(i)
        kept = (s_after / s) ** 2
        alpha, after = self.schedule.alphas[i], self.schedule.alphas[i + 1]
        return after * kept / alpha, after * (1 - kept), 0.0

    def noise_weight(self, i: int) -> float:
        """What the noise is multiplied by: ``α' s_up``."""
        s, s_after = self._levels(i)
        return float(self.schedule.sigmas[i + 1] * (1 - (s_after / s) ** 2) ** 0.5)

    def update(self, latents: torch.Tensor, i: int) -> LinearUpdate:
        """The step for :func:`prism_kernels.guided_step`, which draws the noise itself.

        Raises:
            TypeError: the noise is a function that no kernel can draw.
        """
        if not isinstance(self.noise, CounterNoise):
            raise TypeError(f"a fused ancestral step got noise {self.noise!r}, expected CounterNoise; use step instead")
        weight = self.noise_weight(i)
        return LinearUpdate(latents, self.weights(i), noise=self.noise.weighted(i, weight) if weight else None)

    def step(self, latents: torch.Tensor, denoised: torch.Tensor, i: int) -> torch.Tensor:
        """One ancestral step. Shapes: all (n, c, h, w)."""
        moved, weight = super().step(latents, denoised, i), self.noise_weight(i)
        return moved + weight * self.noise(i) if weight else moved

    def _levels(self, i: int) -> tuple[float, float]:
        """Noise levels ``σ / α`` before and after the step."""
        sigmas, alphas = self.schedule.sigmas, self.schedule.alphas
        return sigmas[i] / alphas[i], sigmas[i + 1] / alphas[i + 1]
