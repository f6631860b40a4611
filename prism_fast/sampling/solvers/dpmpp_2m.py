"""DPM-Solver++(2M): second order from the last two predictions, one network call a step."""

from __future__ import annotations

import math

from prism_fast.sampling.solvers.base import Solver, Weights


class DPMSolverPP2M(Solver):
    """``x' = (σ'/σ) x - α' (e^{-h} - 1) D`` with ``D`` extrapolated in log-SNR.

    The first step is first order, and so is the last one (to σ = 0, where the log-SNR is infinite), as in diffusers'
    ``DPMSolverMultistepScheduler`` with ``final_sigmas_type="zero"``.

    Reference: Lu et al. 2022, DPM-Solver++, algorithm 2.
    """

    order = 2

    def _log_snr(self, i: int) -> float:
        return math.log(self.schedule.alphas[i]) - math.log(self.schedule.sigmas[i])

    def weights(self, i: int) -> Weights:
        """One step; first order at both ends."""
        if self.schedule.sigmas[i + 1] == 0.0:
            return 0.0, self.schedule.alphas[i + 1], 0.0
        h = self._log_snr(i + 1) - self._log_snr(i)
        whole = -self.schedule.alphas[i + 1] * math.expm1(-h)
        extra = 0.5 * h / (self._log_snr(i) - self._log_snr(i - 1)) if i > 0 else 0.0
        return self.schedule.sigmas[i + 1] / self.schedule.sigmas[i], whole * (1 + extra), -whole * extra
