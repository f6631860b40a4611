"""Move the predicted clean latents down the energy gradient, sample by sample, and take the solver's step."""

from __future__ import annotations

from typing import NamedTuple

import torch

from prism_kernels import _reference
from prism_kernels._backend import takes_triton
from prism_kernels._errors import KernelInputError
from prism_kernels.counter_noise import check_counter, counter_word, signed


class UpdateNoise(NamedTuple):
    """What a stochastic solver adds: ``weight`` times ``counter_noise(seed, indices, step, ...)``, never stored."""

    seed: int
    indices: torch.Tensor
    step: int
    weight: float
    stream: int = 0


class LinearUpdate(NamedTuple):
    """A solver's step that is linear: ``z' = weights · (latents, denoised after guidance, previous) + noise``."""

    latents: torch.Tensor
    weights: tuple[float, float, float]
    previous: torch.Tensor | None = None
    noise: UpdateNoise | None = None


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
    indices: torch.Tensor | None,
    seed: int,
    word: int,
    of_noise: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    from prism_kernels._triton.guided_step import launch

    weights = (of_latents, of_denoised, of_previous)
    step = (denoised, gradient, correction_rms, active, scale, max_gradient_rms)
    moved, healthy, stepped, finite = launch(*step, latents, previous, weights, indices, seed, word, of_noise)
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
    indices: torch.Tensor | None,
    seed: int,
    word: int,
    of_noise: float,
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
    no sample ever influences another. With ``update``, the solver's step ``a·z + b·denoised' + c·previous + d·noise``
    is taken in the same pass, from the rounded ``denoised'``, and samples that did not stay finite are flagged. The
    noise is that of :func:`prism_kernels.counter_noise.counter_noise` in float32, made in registers.

    Shapes: denoised, gradient and the update's tensors (n, c, h, w); correction_rms, active and noise indices (n,).
    Dtypes: latents float16, bfloat16 or float32; correction_rms float32; active bool; indices int64.
    Raises: KernelInputError when shapes, dtypes or the noise's counters do not fit.
    Reference: DDIM (Song et al. 2021, eq. 12), DPM-Solver++ 2M (Lu et al. 2022, algorithm 2) are such updates.
    """
    _validate(denoised, gradient, correction_rms, active, update)
    arguments = (denoised, gradient, correction_rms, active, scale, max_gradient_rms)
    if update is None:
        if takes_triton("guided_step", denoised, gradient, correction_rms, active):
            return GuidedStep(*_fused(*arguments))
        return GuidedStep(*_reference.guided_step(*arguments))
    noise = update.noise
    indices = None if noise is None else noise.indices
    tensors = (denoised, gradient, correction_rms, active, update.latents, update.previous, indices)
    if takes_triton("guided_step", *tensors):
        seed, word, weight = (0, 0, 0.0) if noise is None else (noise.seed, _word(noise), noise.weight)
        of_noise = (indices, signed(seed), word, weight)
        return GuidedStep(*_fused_with_update(*arguments, update.latents, update.previous, *update.weights, *of_noise))
    moved, healthy = _reference.guided_step(*arguments)
    return GuidedStep(moved, healthy, *_update(update, moved))


def _word(noise: UpdateNoise) -> int:
    return counter_word(noise.step, noise.stream)


def _update(update: LinearUpdate, moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The solver's step in plain torch."""
    if update.noise is None:
        return _reference.solver_update(update.latents, moved, update.previous, update.weights)
    noise, count = update.noise, moved[:1].numel()
    drawn = _reference.counter_noise(noise.seed, noise.indices, _word(noise), count).view(moved.shape)
    return _reference.solver_update(update.latents, moved, update.previous, update.weights, drawn, noise.weight)


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
    if update is not None and update.noise is not None:
        noise = update.noise
        check_counter("guided_step", noise.seed, noise.indices, noise.step, noise.stream)
        if noise.indices.shape != n:
            raise KernelInputError(
                f"guided_step: got noise indices {tuple(noise.indices.shape)}, expected {tuple(n)} as the samples; "
                "pass one index a sample"
            )
