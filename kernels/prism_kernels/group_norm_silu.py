"""GroupNorm and SiLU of a decoder in one operator, differentiable by its input."""

from __future__ import annotations

from typing import Any

import torch

from prism_kernels import _reference
from prism_kernels._backend import takes_triton
from prism_kernels._errors import KernelInputError


@torch.library.custom_op("prism_kernels::group_norm_silu", mutates_args=())
def _fused(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from prism_kernels._triton.group_norm_silu import launch

    return launch(x.contiguous(memory_format=_order(x)), weight.contiguous(), bias.contiguous(), groups, eps)


@_fused.register_fake
def _(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    statistics = [x.new_empty(x.shape[0], groups, dtype=torch.float32) for _ in range(2)]
    return torch.empty_like(x, memory_format=_order(x)), statistics[0], statistics[1]


@torch.library.custom_op("prism_kernels::group_norm_silu_backward", mutates_args=())
def _fused_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    means: torch.Tensor,
    rstds: torch.Tensor,
    groups: int,
) -> torch.Tensor:
    from prism_kernels._triton.group_norm_silu import launch_backward

    order = _order(x)
    gradient, x = gradient.contiguous(memory_format=order), x.contiguous(memory_format=order)
    return launch_backward(gradient, x, weight.contiguous(), bias.contiguous(), means, rstds, groups)


@_fused_backward.register_fake
def _(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    means: torch.Tensor,
    rstds: torch.Tensor,
    groups: int,
) -> torch.Tensor:
    return torch.empty_like(x, memory_format=_order(x))


def _order(x: torch.Tensor) -> torch.memory_format:
    """The order of memory that x has; of neither, it is copied into the usual one."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    x, weight, bias, ctx.groups, _ = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, gradient: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _fused_backward(gradient, *ctx.saved_tensors, ctx.groups), None, None, None, None


_fused.register_autograd(_backward, setup_context=_keep)


def group_norm_silu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float = 1e-6
) -> torch.Tensor:
    """``silu(group_norm(x))``: ``y = u · σ(u)`` with ``u = w_c · (x - mean_g) / √(var_g + eps) + b_c``.

    Contiguous and channels-last inputs are read as they lie, and the result lies as they do. The gradient is by x
    alone, once: ``dx = (t - mean(t) - h · mean(t · h)) / √(var + eps)`` with ``h`` the normalised x and
    ``t = g · w · σ(u) · (1 + u · (1 - σ(u)))``; only statistics are kept for it. A group of up to 16,384 elements is
    read once; a larger one twice, which is 1.5 times the bytes that must move, and 1.67 times in the backward: nothing
    can be written before all of a group was read.

    Shapes: x (n, c, h, w), weight and bias (c,); returns (n, c, h, w).
    Dtypes: float16, bfloat16 or float32; statistics float32; result as x.
    Raises: KernelInputError when shapes or dtypes do not fit, or weight or bias requires a gradient.
    Reference: Wu and He 2018, "Group Normalization", eq. 1 and 2; Hendrycks and Gimpel 2016 for the SiLU.
    """
    _validate(x, weight, bias, groups, eps)
    if takes_triton("group_norm_silu", x, weight, bias):
        out: torch.Tensor = _fused(x, weight, bias, groups, eps)[0]
        return out
    return _reference.group_norm_silu(x, weight, bias, groups, eps)


def _validate(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float) -> None:
    if x.dim() != 4 or weight.shape != x.shape[1:2] or bias.shape != x.shape[1:2]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (x, weight, bias))
        raise KernelInputError(f"group_norm_silu: got {shapes}, expected (n, c, h, w), (c,), (c,); pass one a channel")
    if groups < 1 or x.shape[1] % groups or not eps > 0:
        raise KernelInputError(
            f"group_norm_silu: got {x.shape[1]} channels in {groups} groups and eps {eps}, expected groups that divide "
            "the channels and eps above 0; take the module's own"
        )
    if not all(t.is_floating_point() for t in (x, weight, bias)):
        dtypes = ", ".join(str(t.dtype) for t in (x, weight, bias))
        raise KernelInputError(f"group_norm_silu: got {dtypes}, expected floating tensors; convert them")
    if torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        raise KernelInputError(
            "group_norm_silu: got a weight or bias that requires a gradient, expected frozen ones; call "
            "requires_grad_(False) on the decoder"
        )
