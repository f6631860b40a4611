"""Inputs and float64 oracles that the reference and the kernels are both held to."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)


def energy_oracle(logits: Tensor, labels: Tensor, a: float, b: float, t: float) -> tuple[Tensor, Tensor]:
    f = logits.double()
    chosen = torch.nn.functional.one_hot(labels, f.shape[1]).double()
    return a * (f * chosen).sum(1) + b * (f / t).logsumexp(1), b / t * (f / t).softmax(1) + a * chosen


def step_oracle(denoised: Tensor, gradient: Tensor, correction: Tensor, active: Tensor, scale: float) -> Tensor:
    g = gradient.double()
    rho = torch.where(active, scale * correction.double() / g.square().flatten(1).mean(1).sqrt(), 0.0)
    return denoised.double() - rho.view(-1, *(1,) * (g.dim() - 1)) * g


def combine_oracle(
    z: Tensor, prediction: Tensor, w: float, alpha: float, sigma: float, kind: str
) -> tuple[Tensor, ...]:
    """As papers write it: convert each branch, then guide the clean latents."""
    n = len(z)

    def clean(p: Tensor) -> Tensor:
        if kind == "sample":
            return p.double()
        v = kind == "v_prediction"
        return alpha * z.double() - sigma * p.double() if v else (z.double() - sigma * p.double()) / alpha

    free, conditional = clean(prediction[:n]), clean(prediction[n:])
    correction = w * (conditional - free)
    return free + correction, correction.square().flatten(1).sum(1)
