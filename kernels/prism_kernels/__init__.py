"""Fused operators of the guided step; in plain torch they are the specification and the CPU path."""

from prism_kernels._errors import KernelInputError
from prism_kernels.energy import energy
from prism_kernels.guided_step import GuidedStep, guided_step

__all__ = ["GuidedStep", "KernelInputError", "energy", "guided_step"]
