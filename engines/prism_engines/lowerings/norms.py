"""Group, layer and batch norm as means and products; statistics in float32."""

from __future__ import annotations

from typing import Any

import torch

from prism_engines.errors import UnsupportedOpError

_aten: Any = torch.ops.aten
Tensor = torch.Tensor
_Norm = tuple[Tensor, Tensor, Tensor]


def _accumulate(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _standardise(x: Tensor, dims: list[int], eps: float) -> _Norm:
    x = _accumulate(x)
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    rstd = ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()
    return centred * rstd, mean, rstd


def _standardise_backward(g: Tensor, normal: Tensor, rstd: Tensor, dims: list[int]) -> Tensor:
    """``rstd (g - mean(g) - normal · mean(g · normal))``."""
    return rstd * (g - g.mean(dims, keepdim=True) - normal * (g * normal).mean(dims, keepdim=True))


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: list[int]) -> Tensor:
    if weight is not None:
        y = y * _accumulate(weight).view(shape)
    return y if bias is None else y + _accumulate(bias).view(shape)


def native_layer_norm(
    x: Tensor, normalized_shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> _Norm:
    """Mean and reciprocal deviation are returned too, for the derivative."""
    dims = list(range(x.dim() - len(normalized_shape), x.dim()))
    y, mean, rstd = _standardise(x, dims, eps)
    return _affine(y, weight, bias, list(normalized_shape)).to(x.dtype), mean, rstd


def native_layer_norm_backward(
    g: Tensor,
    x: Tensor,
    normalized_shape: list[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    output_mask: list[bool],
) -> tuple[Tensor, None, None]:
    """By the input alone."""
    dims = list(range(x.dim() - len(normalized_shape), x.dim()))
    normal = (_accumulate(x) - mean) * rstd
    g = _affine(_accumulate(g), weight, None, list(normalized_shape))
    return _standardise_backward(g, normal, rstd, dims).to(x.dtype), None, None


def native_group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hw: int, groups: int, eps: float
) -> _Norm:
    """Each group of channels of each sample has its own mean and deviation."""
    y, mean, rstd = _standardise(x.reshape(n, groups, -1), [2], eps)
    shape = [1, c] + [1] * (x.dim() - 2)
    y = _affine(y.reshape(x.shape), weight, bias, shape)
    return y.to(x.dtype), mean.reshape(n, groups), rstd.reshape(n, groups)


def native_group_norm_backward(
    g: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    n: int,
    c: int,
    hw: int,
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor, None, None]:
    """By the input alone."""
    g = _affine(_accumulate(g), weight, None, [1, c] + [1] * (x.dim() - 2)).reshape(n, groups, -1)
    mean, rstd = mean.reshape(n, groups, 1), rstd.reshape(n, groups, 1)
    normal = (_accumulate(x).reshape(n, groups, -1) - mean) * rstd
    return _standardise_backward(g, normal, rstd, [2]).reshape(x.shape).to(x.dtype), None, None


def _scale(weight: Tensor | None, variance: Tensor, eps: float, like: Tensor) -> Tensor:
    """Constant scale (1, c, 1, ...) of a batch norm in evaluation: folded while tracing."""
    scale = (_accumulate(variance) + eps).rsqrt()
    if weight is not None:
        scale = scale * _accumulate(weight)
    return scale.to(like.dtype).view([1, -1] + [1] * (like.dim() - 2))


def native_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> _Norm:
    """One product and one sum with constants."""
    if training or mean is None or variance is None:
        raise UnsupportedOpError("native_batch_norm: batch statistics couple the samples; call eval() on the module")
    scale = _scale(weight, variance, eps, x)
    shift = -_accumulate(mean).view(scale.shape) * scale.to(_accumulate(mean).dtype)
    if bias is not None:
        shift = shift + _accumulate(bias).view(scale.shape)
    return x * scale + shift.to(x.dtype), mean.new_empty(0), mean.new_empty(0)


def native_batch_norm_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor | None,
    variance: Tensor,
    save_mean: Tensor | None,
    save_rstd: Tensor | None,
    training: bool,
    eps: float,
    output_mask: list[bool],
) -> tuple[Tensor, None, None]:
    """The same constant product."""
    return g * _scale(weight, variance, eps, g), None, None


LOWERINGS: dict[Any, Any] = {
    _aten.native_layer_norm.default: native_layer_norm,
    _aten.native_layer_norm_backward.default: native_layer_norm_backward,
    _aten.native_group_norm.default: native_group_norm,
    _aten.native_group_norm_backward.default: native_group_norm_backward,
    _aten.native_batch_norm.default: native_batch_norm,
    _aten.native_batch_norm_backward.default: native_batch_norm_backward,
}
