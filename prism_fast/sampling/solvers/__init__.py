"""Solvers by name, one a file."""

from prism_fast.config import SolverName
from prism_fast.sampling.noise_schedule import NoiseSchedule
from prism_fast.sampling.solvers.base import Solver
from prism_fast.sampling.solvers.ddim import DDIM
from prism_fast.sampling.solvers.dpmpp_2m import DPMSolverPP2M
from prism_fast.sampling.solvers.euler import Euler
from prism_fast.sampling.solvers.euler_ancestral import CounterNoise, EulerAncestral

__all__ = ["DDIM", "CounterNoise", "DPMSolverPP2M", "Euler", "EulerAncestral", "Solver", "make_solver"]

_DETERMINISTIC: dict[str, type[Solver]] = {"ddim": DDIM, "dpmpp_2m": DPMSolverPP2M, "euler": Euler}


def make_solver(name: SolverName, schedule: NoiseSchedule, noise: CounterNoise) -> Solver:
    """A fresh solver for one batch; ``noise`` is drawn by stochastic ones alone."""
    return EulerAncestral(schedule, noise) if name == "euler_ancestral" else _DETERMINISTIC[name](schedule)
