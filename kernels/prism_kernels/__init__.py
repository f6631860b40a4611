"""Fused operators of the guided step; in plain torch they are the specification and the CPU path."""

from prism_kernels._backend import explain, reasons, use_backend
from prism_kernels._errors import KernelBackendError, KernelInputError
from prism_kernels.energy import energy
from prism_kernels.guided_combine import GuidedCombine, guided_combine
from prism_kernels.guided_step import GuidedStep, LinearUpdate, guided_step

__all__ = [
    "GuidedCombine",
    "GuidedStep",
    "KernelBackendError",
    "KernelInputError",
    "LinearUpdate",
    "energy",
    "explain",
    "guided_combine",
    "guided_step",
    "reasons",
    "use_backend",
]
