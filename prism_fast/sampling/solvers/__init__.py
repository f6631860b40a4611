"""Solvers by name, one a file."""

from prism_fast.config import SolverName
from prism_fast.sampling.grid import Grid
from prism_fast.sampling.solvers.base import Solver
from prism_fast.sampling.solvers.ddim import DDIM
from prism_fast.sampling.solvers.dpmpp_2m import DPMSolverPP2M
from prism_fast.sampling.solvers.euler import Euler

__all__ = ["DDIM", "DPMSolverPP2M", "Euler", "Solver", "make_solver"]


def make_solver(name: SolverName, grid: Grid) -> Solver:
    """A fresh solver for one batch."""
    if name == "ddim":
        return DDIM(grid)
    return DPMSolverPP2M(grid) if name == "dpmpp_2m" else Euler(grid)
