"""Each solver's step as one weighted sum is the step itself, and so is the fused one."""

from __future__ import annotations

import pytest
import torch
from prism_kernels import LinearUpdate, guided_step

from prism_fast.sampling.noise_schedule import NoiseSchedule
from prism_fast.sampling.solvers import DDIM, DPMSolverPP2M, Euler

ALPHAS = (0.1, 0.4, 0.7, 0.9, 1.0)
GRID = NoiseSchedule((900, 600, 300, 100), ALPHAS, tuple((1 - a * a) ** 0.5 for a in ALPHAS))


@pytest.mark.parametrize("kind", [DDIM, Euler, DPMSolverPP2M])
def test_weights_are_the_step(kind: type[DDIM] | type[Euler] | type[DPMSolverPP2M]) -> None:
    generator = torch.Generator().manual_seed(0)
    solver, z, previous = kind(GRID), torch.randn(2, 4, 3, 3, generator=generator), None
    still, off = torch.zeros_like(z), torch.zeros(2, dtype=torch.bool)
    for i in range(len(GRID)):
        clean = torch.randn(z.shape, generator=generator)
        expected = solver.step(z, clean, i)
        update = LinearUpdate(z, solver.weights(i), previous)
        fused = guided_step(clean, still, torch.ones(2), off, 1.0, update=update)
        assert fused.latents is not None
        torch.testing.assert_close(fused.latents, expected, rtol=1e-5, atol=1e-6)
        z, previous = expected, clean
