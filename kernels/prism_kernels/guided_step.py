"""Move the predicted clean latents down the energy gradient, sample by sample, and take the solver's step."""

from __future__ import annotations

from typing import NamedTuple

import torch

from prism_kernels import _reference
from prism_kernels._backend import takes_triton
from prism_kernels._errors import KernelInputError


class LinearUpdate(NamedTuple):
    """A solver's step that is linear: ``z' = weights · (latents, denoised after guidance, previous)``."""

    latents: torch.Tensor
    weights: tuple[float, float, float]
    previous: torch.Tensor | None = None


class GuidedStep(NamedTuple):
    """``denoised`` after guidance, and which samples had a usable gradient (bool, (n,)).

    With an update also the next ``latents`` and which of their samples are finite (bool, (n,)).
    """

    denoised: torch.Tensor
    healthy: torch.Tensor
    latents: torch.Tensor | None = None
    finite: torch.Tensor | None = None


@torch.library.custom_op("prism_kernels::guided_step", mutates_args=())
def _fused(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    scale: float,
    max_gradient_rms: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    from prism_kernels._triton.guided_step import launch

    moved, healthy = launch(denoised, gradient, correction_rms, active, scale, max_gradient_rms)
    return moved, healthy


@_fused.register_fake
def _(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    scale: float,
    max_gradient_rms: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    return denoised.new_empty(denoised.shape), denoised.new_empty(denoised.shape[0], dtype=torch.bool)


@torch.library.custom_op("prism_kernels::guided_solver_step", mutates_args=())
def _fused_with_update(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    scale: float,
    max_gradient_rms: float,
    latents: torch.Tensor,
    previous: torch.Tensor | None,
    of_latents: float,
    of_denoised: float,
    of_previous: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    from prism_kernels._triton.guided_step import launch

    weights = (of_latents, of_denoised, of_previous)
    moved, healthy, stepped, finite = launch(
        denoised, gradient, correction_rms, active, scale, max_gradient_rms, latents, previous, weights
    )
    return moved, healthy, stepped, finite


@_fused_with_update.register_fake
def _(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    scale: float,
    max_gradient_rms: float,
    latents: torch.Tensor,
    previous: torch.Tensor | None,
    of_latents: float,
    of_denoised: float,
    of_previous: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    n = denoised.shape[0]
    flags = [denoised.new_empty(n, dtype=torch.bool) for _ in range(2)]
    return denoised.new_empty(denoised.shape), flags[0], latents.new_empty(latents.shape), flags[1]


def guided_step(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    scale: float,
    max_gradient_rms: float = 1e4,
    update: LinearUpdate | None = None,
) -> GuidedStep:
    """``denoised - rho · g`` with ``rho = scale · correction_rms / rms(g)`` for active samples.

    A sample whose gradient is not finite, or whose RMS exceeds ``max_gradient_rms``, is left as it was and reported;
    no sample ever influences another. With ``update``, the solver's step ``a·z + b·denoised' + c·previous`` is taken
    in the same pass, from the rounded ``denoised'``, and samples that did not stay finite are flagged.

    Shapes: denoised, gradient and the update's tensors (n, c, h, w); correction_rms and active (n,).
    Dtypes: latents float16, bfloat16 or float32; correction_rms float32; active bool.
    Raises: KernelInputError when shapes or dtypes do not fit.
    Reference: DDIM (Song et al. 2021, eq. 12), DPM-Solver++ 2M (Lu et al. 2022, algorithm 2) are such updates.
    """
    _validate(denoised, gradient, correction_rms, active, update)
    arguments = (denoised, gradient, correction_rms, active, scale, max_gradient_rms)
    tensors: tuple[torch.Tensor | None, ...] = () if update is None else (update.latents, update.previous)
    if takes_triton("guided_step", denoised, gradient, correction_rms, active, *tensors):
        if update is None:
            return GuidedStep(*_fused(*arguments))
        return GuidedStep(*_fused_with_update(*arguments, update.latents, update.previous, *update.weights))
    moved, healthy = _reference.guided_step(*arguments)
    if update is None:
        return GuidedStep(moved, healthy)
    stepped, finite = _reference.solver_update(update.latents, moved, update.previous, update.weights)
    return GuidedStep(moved, healthy, stepped, finite)


def _validate(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    update: LinearUpdate | None,
) -> None:
    n = denoised.shape[:1]
    if gradient.shape != denoised.shape or correction_rms.shape != n or active.shape != n:
        shapes = ", ".join(str(tuple(t.shape)) for t in (denoised, gradient, correction_rms, active))
        raise KernelInputError(f"guided_step: expected (n, c, h, w) twice and (n,) twice; got {shapes}")
    if active.dtype != torch.bool:
        raise KernelInputError(f"guided_step: active must be bool, got {active.dtype}")
    tensors: tuple[torch.Tensor | None, ...] = () if update is None else (update.latents, update.previous)
    for t in tensors:
        if t is not None and t.shape != denoised.shape:
            raise KernelInputError(
                f"guided_step: got an update with {tuple(t.shape)}, expected {tuple(denoised.shape)} as denoised; "
                "pass the latents and the prediction of the same samples"
            )
