"""Euler in the variance-exploding variable: first order, one network call a step."""

from __future__ import annotations

from prism_fast.sampling.solvers.base import Solver, Weights


class Euler(Solver):
    """``y' = y + (s' - s) (y - x₀) / s`` with ``y = x / α`` and ``s = σ / α``.

    On one schedule it takes the same steps as DDIM up to rounding; it is kept because users of k-diffusion expect it
    by name. Reference: Karras et al. 2022, algorithm 1 without the correction.
    """

    order = 1

    def weights(self, i: int) -> Weights:
        """One Euler step."""
        alpha, after = self.schedule.alphas[i], self.schedule.alphas[i + 1]
        s, s_after = self.schedule.sigmas[i] / alpha, self.schedule.sigmas[i + 1] / after
        return after * s_after / (s * alpha), after * (1 - s_after / s), 0.0
