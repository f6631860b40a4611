"""Every operator in plain torch, float32: the specification that fused kernels are tested against."""

from __future__ import annotations

import torch


def energy(
    logits: torch.Tensor, labels: torch.Tensor, class_weight: float, lse_weight: float, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`prism_kernels.energy.energy`."""
    scaled = logits.float() / temperature
    # A one-hot mask, not gather and scatter: it exports to every engine.
    chosen = (labels.unsqueeze(1) == torch.arange(logits.shape[1], device=labels.device)).float()
    value = class_weight * (logits.float() * chosen).sum(1) + lse_weight * scaled.logsumexp(1)
    return value, (lse_weight / temperature) * scaled.softmax(1) + class_weight * chosen


def rms(x: torch.Tensor) -> torch.Tensor:
    """Root mean square of each sample: (n, ...) to (n,), float32."""
    return x.float().square().flatten(1).mean(1).sqrt()


def guided_step(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    scale: float,
    max_gradient_rms: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`prism_kernels.guided_step.guided_step`."""
    size = rms(gradient)
    healthy = torch.isfinite(size) & (size <= max_gradient_rms)
    factor = scale * correction_rms / size.clamp_min(1e-12)
    factor = torch.where(active & healthy, factor, torch.zeros_like(factor))
    shape = (-1,) + (1,) * (denoised.dim() - 1)
    safe = torch.where(healthy.view(shape), gradient.float(), torch.zeros_like(gradient, dtype=torch.float32))
    return (denoised.float() - factor.view(shape) * safe).to(denoised.dtype), healthy


def solver_update(
    latents: torch.Tensor, denoised: torch.Tensor, previous: torch.Tensor | None, weights: tuple[float, float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``update`` of :func:`prism_kernels.guided_step.guided_step`."""
    total = weights[0] * latents.float() + weights[1] * denoised.float()
    if previous is not None:
        total = total + weights[2] * previous.float()
    stepped = total.to(latents.dtype)
    return stepped, torch.isfinite(stepped).flatten(1).all(1)


def guided_combine(
    latents: torch.Tensor, prediction: torch.Tensor, guidance_scale: float, of_latents: float, of_prediction: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`prism_kernels.guided_combine.guided_combine`."""
    n = latents.shape[0]
    free, conditional = prediction[:n].float(), prediction[n:].float()
    change = guidance_scale * (conditional - free)
    denoised = of_latents * latents.float() + of_prediction * (free + change)
    return denoised.to(latents.dtype), (of_prediction * change).square().flatten(1).sum(1)
