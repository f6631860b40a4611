"""DDIM without noise: first order, one network call a step."""

from __future__ import annotations

import torch

from prism_fast.sampling.solvers.base import GridSolver, Weights


class DDIM(GridSolver):
    """``x' = α' x₀ + σ' (x - α x₀) / σ``. Reference: Song et al. 2021, eq. 12 with η = 0."""

    order = 1

    def step(self, latents: torch.Tensor, denoised: torch.Tensor, i: int) -> torch.Tensor:
        """One deterministic DDIM step."""
        alpha, sigma = self.grid.alphas[i], self.grid.sigmas[i]
        noise = (latents - alpha * denoised) / sigma
        return self.grid.alphas[i + 1] * denoised + self.grid.sigmas[i + 1] * noise

    def weights(self, i: int) -> Weights:
        """The same step as one sum, for ``prism_kernels.LinearUpdate``."""
        ratio = self.grid.sigmas[i + 1] / self.grid.sigmas[i]
        return ratio, self.grid.alphas[i + 1] - ratio * self.grid.alphas[i], 0.0
