"""Every operator in plain torch, float32: the specification that fused kernels are tested against."""

from __future__ import annotations

import math

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
    latents: torch.Tensor,
    denoised: torch.Tensor,
    previous: torch.Tensor | None,
    weights: tuple[float, float, float],
    noise: torch.Tensor | None = None,
    of_noise: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``update`` of :func:`prism_kernels.guided_step.guided_step`."""
    total = weights[0] * latents.float() + weights[1] * denoised.float()
    if previous is not None:
        total = total + weights[2] * previous.float()
    if noise is not None:
        total = total + of_noise * noise
    stepped = total.to(latents.dtype)
    return stepped, torch.isfinite(stepped).flatten(1).all(1)


_LOW = 0xFFFFFFFF


def philox(seed: int, indices: torch.Tensor, word: int, blocks: int) -> torch.Tensor:
    """Random bits (n, blocks, 4), each 32 of them in an int64: Philox 4×32 with ten rounds.

    Key: the seed's low and high half. Counter: (block, word, low half, high half of the sample's index).
    """
    block = torch.arange(blocks, device=indices.device).expand(len(indices), blocks)
    a, b = block, torch.full_like(block, word & _LOW)
    c, d = ((indices >> shift & _LOW).unsqueeze(1).expand_as(block) for shift in (0, 32))
    k, m = seed & _LOW, seed >> 32 & _LOW
    for _ in range(10):
        # 32 by 32 bits may pass 2^63 and wrap; after the mask the upper half is right all the same.
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = right >> 32 & _LOW ^ b ^ k, right & _LOW, left >> 32 & _LOW ^ d ^ m, left & _LOW
        k, m = k + 0x9E3779B9 & _LOW, m + 0xBB67AE85 & _LOW
    return torch.stack([a, b, c, d], dim=2)


def counter_noise(seed: int, indices: torch.Tensor, word: int, count: int) -> torch.Tensor:
    """See :func:`prism_kernels.counter_noise.counter_noise`: normals (n, count), float32.

    Box–Muller of each block's first and second pair; 24 bits of each number, so that uniforms are exact in float32.
    """
    bits = philox(seed, indices, word, -(-count // 4)).unflatten(2, (2, 2)) >> 8
    radius = (-2.0 * ((bits[..., 0] + 1).float() * 2.0**-24).log()).sqrt()
    angle = bits[..., 1].float() * (2.0**-24 * 2.0 * math.pi)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=3)
    return pairs.flatten(1)[:, :count]


def view_matrices(boxes: torch.Tensor, size_in: tuple[int, int], size_out: int) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`prism_kernels.view.view_matrices`."""
    top, height, left, width, flip = boxes.double().unbind(1)
    rows, columns = _resize(top, height, size_in[0], size_out), _resize(left, width, size_in[1], size_out)
    columns = torch.where((flip >= 0.5).view(-1, 1, 1), columns.flip(1), columns)
    return rows.float().unsqueeze(1), columns.float().unsqueeze(1)


def _resize(start: torch.Tensor, length: torch.Tensor, size_in: int, size_out: int) -> torch.Tensor:
    """Matrices (n, size_out, size_in) of an antialiased triangle filter on ``[start, start + length)``, float64."""
    step = (length / size_out).view(-1, 1, 1)
    outputs, pixels = (torch.arange(k, device=start.device, dtype=torch.float64) + 0.5 for k in (size_out, size_in))
    centres = start.view(-1, 1, 1) + outputs.unsqueeze(1) * step
    weights = (1 - (pixels - centres).abs() / step.clamp_min(1.0)).clamp_min(0.0)
    return weights / weights.sum(2, keepdim=True)


def view(
    images: torch.Tensor, boxes: torch.Tensor, size: int, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """See :func:`prism_kernels.view.view`."""
    rows, columns = view_matrices(boxes, (images.shape[2], images.shape[3]), size)
    seen = rows @ images.float() @ columns.transpose(2, 3)
    return (scale.view(-1, 1, 1) * seen + shift.view(-1, 1, 1)).to(images.dtype)


def view_adjoint(
    gradient: torch.Tensor, boxes: torch.Tensor, height: int, width: int, scale: torch.Tensor
) -> torch.Tensor:
    """See :func:`prism_kernels.view.view_adjoint`."""
    rows, columns = view_matrices(boxes, (height, width), gradient.shape[2])
    back = rows.transpose(2, 3) @ gradient.float() @ columns
    return (scale.view(-1, 1, 1) * back).to(gradient.dtype)


def group_norm_silu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float) -> torch.Tensor:
    """See :func:`prism_kernels.group_norm_silu.group_norm_silu`."""
    u = torch.group_norm(x.float(), groups, weight.float(), bias.float(), eps)
    return torch.nn.functional.silu(u).to(x.dtype)


def guided_combine(
    latents: torch.Tensor, prediction: torch.Tensor, guidance_scale: float, of_latents: float, of_prediction: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`prism_kernels.guided_combine.guided_combine`."""
    n = latents.shape[0]
    free, conditional = prediction[:n].float(), prediction[n:].float()
    change = guidance_scale * (conditional - free)
    denoised = of_latents * latents.float() + of_prediction * (free + change)
    return denoised.to(latents.dtype), (of_prediction * change).square().flatten(1).sum(1)
