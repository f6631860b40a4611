"""Fused operators of the guided step; in plain torch they are the specification and the CPU path."""

from prism_kernels._backend import explain, interpreter_reasons, reasons, use_backend
from prism_kernels._errors import KernelBackendError, KernelInputError
from prism_kernels.counter_noise import counter_noise
from prism_kernels.energy import energy
from prism_kernels.group_norm_silu import group_norm_silu
from prism_kernels.guided_combine import GuidedCombine, guided_combine
from prism_kernels.guided_step import GuidedStep, LinearUpdate, UpdateNoise, guided_step
from prism_kernels.view import view, view_adjoint, view_matrices

__all__ = [
    "GuidedCombine",
    "GuidedStep",
    "KernelBackendError",
    "KernelInputError",
    "LinearUpdate",
    "UpdateNoise",
    "counter_noise",
    "energy",
    "explain",
    "group_norm_silu",
    "guided_combine",
    "guided_step",
    "interpreter_reasons",
    "reasons",
    "use_backend",
    "view",
    "view_adjoint",
    "view_matrices",
]
