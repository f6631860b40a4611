"""Activations, softmax and their derivatives as elementwise primitives."""

from __future__ import annotations

import math
from typing import Any

import torch

_aten: Any = torch.ops.aten
Tensor = torch.Tensor


def _where(condition: Tensor, x: Tensor) -> Tensor:
    return torch.where(condition, x, torch.zeros_like(x))


def threshold_backward(g: Tensor, x: Tensor, threshold: float) -> Tensor:
    """Derivative of ReLU."""
    return _where(x > threshold, g)


def hardtanh(x: Tensor, low: float = -1, high: float = 1) -> Tensor:
    """ReLU6 is ``hardtanh(x, 0, 6)``."""
    return x.clamp(low, high)


def hardtanh_backward(g: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Nothing passes outside of the open interval."""
    return _where((x > low) & (x < high), g)


def hardsigmoid(x: Tensor) -> Tensor:
    """``clamp(x + 3, 0, 6) / 6``."""
    return (x + 3).clamp(0, 6) / 6


def hardsigmoid_backward(g: Tensor, x: Tensor) -> Tensor:
    """One sixth inside (-3, 3)."""
    return _where((x > -3) & (x < 3), g / 6)


def hardswish(x: Tensor) -> Tensor:
    """``x · hardsigmoid(x)``."""
    return x * hardsigmoid(x)


def hardswish_backward(g: Tensor, x: Tensor) -> Tensor:
    """0 below -3, ``x / 3 + 1/2`` up to 3, then 1."""
    slope = torch.where(x < 3, x / 3 + 0.5, torch.ones_like(x))
    return _where(x > -3, g * slope)


def silu(x: Tensor) -> Tensor:
    """``x · sigmoid(x)``."""
    return x * x.sigmoid()


def silu_backward(g: Tensor, x: Tensor) -> Tensor:
    """``s (1 + x (1 - s))`` with ``s = sigmoid(x)``; once Inductor is loaded, torch's own form writes in place."""
    s = x.sigmoid()
    return g * (s * (1 + x * (1 - s)))


def sigmoid_backward(g: Tensor, y: Tensor) -> Tensor:
    """``y (1 - y)``."""
    return g * (y * (1 - y))


def tanh_backward(g: Tensor, y: Tensor) -> Tensor:
    """``1 - y²``."""
    return g * (1 - y * y)


_K, _C = math.sqrt(2 / math.pi), 0.044715


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """By the error function, or its tanh approximation."""
    if approximate == "tanh":
        return 0.5 * x * (1 + (_K * (x + _C * x * x * x)).tanh())
    return 0.5 * x * (1 + (x * math.sqrt(0.5)).erf())


def gelu_backward(g: Tensor, x: Tensor, *, approximate: str = "none") -> Tensor:
    """Cumulative plus ``x`` times density; in the tanh form its own derivative."""
    if approximate == "tanh":
        t = (_K * (x + _C * x * x * x)).tanh()
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (_K * (1 + 3 * _C * x * x))
    else:
        slope = 0.5 * (1 + (x * math.sqrt(0.5)).erf()) + x * (-0.5 * x * x).exp() / math.sqrt(2 * math.pi)
    return g * slope


def softmax_backward(g: Tensor, y: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """``y (g - sum(g y))``."""
    return (y * (g - (g * y).sum(dim, keepdim=True))).to(dtype)


def safe_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Differs from softmax only in rows that a mask empties; there are no masks here."""
    return x.softmax(dim, dtype)


def rsub(x: Tensor, other: Any, alpha: float = 1) -> Tensor:
    """``other - alpha · x``."""
    return (-(x if alpha == 1 else x * alpha)).add(other)


def logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    """Shifted by the maximum."""
    top = x.amax(dim, keepdim=True)
    out = (x - top).exp().sum(dim, keepdim=True).log() + top
    return out if keepdim else out.sum(dim)


LOWERINGS: dict[Any, Any] = {
    _aten.threshold_backward.default: threshold_backward,
    _aten.hardtanh.default: hardtanh,
    _aten.hardtanh_backward.default: hardtanh_backward,
    _aten.hardsigmoid.default: hardsigmoid,
    _aten.hardsigmoid_backward.default: hardsigmoid_backward,
    _aten.hardswish.default: hardswish,
    _aten.hardswish_backward.default: hardswish_backward,
    _aten.silu.default: silu,
    _aten.silu_backward.default: silu_backward,
    _aten.sigmoid_backward.default: sigmoid_backward,
    _aten.tanh_backward.default: tanh_backward,
    _aten.gelu.default: gelu,
    _aten.gelu_backward.default: gelu_backward,
    _aten._softmax_backward_data.default: softmax_backward,
    _aten._safe_softmax.default: safe_softmax,
    _aten.rsub.Scalar: rsub,
    _aten.rsub.Tensor: rsub,
    _aten.logsumexp.default: logsumexp,
}
