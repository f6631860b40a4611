"""Move the predicted clean latents down the energy gradient, sample by sample."""

from __future__ import annotations

from typing import NamedTuple

import torch

from prism_kernels import _reference
from prism_kernels._errors import KernelInputError


class GuidedStep(NamedTuple):
    """``denoised`` after guidance, and which samples had a usable gradient (bool, (n,))."""

    denoised: torch.Tensor
    healthy: torch.Tensor


def guided_step(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    scale: float,
    max_gradient_rms: float = 1e4,
) -> GuidedStep:
    """``denoised - rho · g`` with ``rho = scale · correction_rms / rms(g)`` for active samples.

    A sample whose gradient is not finite, or whose RMS exceeds ``max_gradient_rms``, is left as it was and reported;
    no sample ever influences another.

    Shapes: denoised and gradient (n, c, h, w); correction_rms and active (n,).
    Dtypes: latents float16, bfloat16 or float32; correction_rms float32; active bool.
    Raises: KernelInputError when shapes or dtypes do not fit.
    """
    n = denoised.shape[:1]
    if gradient.shape != denoised.shape or correction_rms.shape != n or active.shape != n:
        shapes = ", ".join(str(tuple(t.shape)) for t in (denoised, gradient, correction_rms, active))
        raise KernelInputError(f"guided_step: expected (n, c, h, w) twice and (n,) twice; got {shapes}")
    if active.dtype != torch.bool:
        raise KernelInputError(f"guided_step: active must be bool, got {active.dtype}")
    return GuidedStep(*_reference.guided_step(denoised, gradient, correction_rms, active, scale, max_gradient_rms))
