"""What a solver is."""

from __future__ import annotations

from typing import Protocol

import torch

from prism_fast.sampling.grid import Grid


class Solver(Protocol):
    """Integrates the probability-flow ODE; one instance serves one batch, since it may keep history."""

    order: int

    def step(self, latents: torch.Tensor, denoised: torch.Tensor, i: int) -> torch.Tensor:
        """From noise level ``i`` to ``i + 1`` given the predicted clean latents. Shapes: all (n, c, h, w)."""
        ...


# What a linear step multiplies: latents, predicted clean latents, previous prediction (0 where none is used).
Weights = tuple[float, float, float]


class GridSolver:
    """A solver over a fixed grid."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
