"""DDIM without noise: first order, one network call a step."""

from __future__ import annotations

from prism_fast.sampling.solvers.base import Solver, Weights


class DDIM(Solver):
    """``x' = α' x₀ + σ' (x - α x₀) / σ``. Reference: Song et al. 2021, eq. 12 with η = 0."""

    order = 1

    def weights(self, i: int) -> Weights:
        """One deterministic DDIM step."""
        ratio = self.schedule.sigmas[i + 1] / self.schedule.sigmas[i]
        return ratio, self.schedule.alphas[i + 1] - ratio * self.schedule.alphas[i], 0.0
