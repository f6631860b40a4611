"""Euler in the variance-exploding variable: first order, one network call a step."""

from __future__ import annotations

import torch

from prism_fast.sampling.solvers.base import GridSolver, Weights


class Euler(GridSolver):
    """``y' = y + (s' - s) (y - x₀) / s`` with ``y = x / α`` and ``s = σ / α``.

    On the same grid it takes the same steps as DDIM up to rounding; it is kept because users of k-diffusion expect it
    by name. Reference: Karras et al. 2022, algorithm 1 without the correction.
    """

    order = 1

    def step(self, latents: torch.Tensor, denoised: torch.Tensor, i: int) -> torch.Tensor:
        """One Euler step."""
        alpha, after = self.grid.alphas[i], self.grid.alphas[i + 1]
        s, s_after = self.grid.sigmas[i] / alpha, self.grid.sigmas[i + 1] / after
        y = latents / alpha
        return after * (y + (s_after - s) * (y - denoised) / s)

    def weights(self, i: int) -> Weights:
        """The same step as one sum, for ``prism_kernels.LinearUpdate``."""
        alpha, after = self.grid.alphas[i], self.grid.alphas[i + 1]
        s, s_after = self.grid.sigmas[i] / alpha, self.grid.sigmas[i + 1] / after
        return after * s_after / (s * alpha), after * (1 - s_after / s), 0.0
