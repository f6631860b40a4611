"""Both branches of a diffusion network's output to guided clean latents, in one pass."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from prism_kernels import _reference
from prism_kernels._backend import takes_triton
from prism_kernels._errors import KernelInputError

PredictionType = Literal["epsilon", "v_prediction", "sample"]


class GuidedCombine(NamedTuple):
    """Clean latents (n, ...), and the sum of squares (n,) of what classifier-free guidance added to them."""

    denoised: torch.Tensor
    correction_squares: torch.Tensor


@torch.library.custom_op("prism_kernels::guided_combine", mutates_args=())
def _fused(
    latents: torch.Tensor, prediction: torch.Tensor, guidance_scale: float, of_latents: float, of_prediction: float
) -> tuple[torch.Tensor, torch.Tensor]:
    from prism_kernels._triton.guided_combine import launch

    return launch(latents, prediction, guidance_scale, of_latents, of_prediction)


@_fused.register_fake
def _(
    latents: torch.Tensor, prediction: torch.Tensor, guidance_scale: float, of_latents: float, of_prediction: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return latents.new_empty(latents.shape), latents.new_empty(latents.shape[0], dtype=torch.float32)


def guided_combine(
    latents: torch.Tensor,
    prediction: torch.Tensor,
    guidance_scale: float,
    alpha: float,
    sigma: float,
    prediction_type: PredictionType,
) -> GuidedCombine:
    """Classifier-free guidance of the clean latents that a network predicts.

    ``x₀ = A·z + B·(p_u + w·(p_c - p_u))`` with (A, B) = (1/α, -σ/α) for ``epsilon``, (α, -σ) for ``v_prediction`` and
    (0, 1) for ``sample``; guiding the prediction and guiding the clean latents are the same thing, since both are
    linear. The correction is ``B·w·(p_c - p_u)``.

    Shapes: latents (n, ...), prediction (2n, ...), unconditional rows first; returns (n, ...) and (n,).
    Dtypes: float16, bfloat16 or float32; x₀ as the latents, sums float32.
    Raises: KernelInputError when shapes, dtypes, alpha or the prediction type do not fit.
    Reference: Ho and Salimans 2022, eq. 6; Salimans and Ho 2022, appendix D, for ``v``.
    """
    if prediction.dim() != latents.dim() or prediction.shape != (2 * latents.shape[0], *latents.shape[1:]):
        raise KernelInputError(
            f"guided_combine: got latents {tuple(latents.shape)}, prediction {tuple(prediction.shape)}, expected "
            "(n, ...) and (2n, ...); stack the unconditional rows before the conditional ones"
        )
    if not (latents.is_floating_point() and prediction.is_floating_point()):
        raise KernelInputError(
            f"guided_combine: got {latents.dtype} and {prediction.dtype}, expected floating tensors; convert them"
        )
    of_latents, of_prediction = _weights(alpha, sigma, prediction_type)
    if takes_triton("guided_combine", latents, prediction):
        return GuidedCombine(*_fused(latents, prediction, guidance_scale, of_latents, of_prediction))
    return GuidedCombine(*_reference.guided_combine(latents, prediction, guidance_scale, of_latents, of_prediction))


def _weights(alpha: float, sigma: float, prediction_type: str) -> tuple[float, float]:
    if prediction_type == "epsilon":
        if alpha == 0:
            raise KernelInputError("guided_combine: got alpha 0, expected above 0 for 'epsilon'; start at lower noise")
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        return alpha, -sigma
    if prediction_type == "sample":
        return 0.0, 1.0
    raise KernelInputError(
        f"guided_combine: got prediction type {prediction_type!r}, expected 'epsilon', 'v_prediction' or 'sample'; "
        "name one"
    )
