"""Convolution's derivative by its input, and transposed convolution, as plain convolutions.

``dL/dx`` of a convolution is a convolution of the zero-inserted ``dL/dy`` with the flipped weight, its channel axes
swapped inside each group. ``ConvTranspose`` would say the same, but OpenVINO's float32 result for it was wrong
(relative error 1.39) where this form is right.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from prism_engines.errors import UnsupportedOpError

_aten: Any = torch.ops.aten
Tensor = torch.Tensor


def flipped(weight: Tensor, groups: int) -> Tensor:
    """Weight (out, in / groups, kh, kw) of the transposed map: (in, out / groups, kh, kw)."""
    out, per_group, kh, kw = weight.shape
    split = weight.reshape(groups, out // groups, per_group, kh, kw).transpose(1, 2)
    return split.reshape(groups * per_group, out // groups, kh, kw).flip(2, 3)


def insert_zeros(x: Tensor, stride: list[int]) -> Tensor:
    """Put ``stride - 1`` zeros after each element of the last two axes but the last: (n, c, (h-1)·s+1, ...)."""
    n, c, h, w = x.shape
    sh, sw = stride
    if sh > 1:
        x = F.pad(x.reshape(n, c, h, 1, w), (0, 0, 0, sh - 1)).reshape(n, c, h * sh, w)[:, :, : (h - 1) * sh + 1]
    if sw > 1:
        x = F.pad(x.unsqueeze(4), (0, sw - 1)).reshape(n, c, x.shape[2], w * sw)[..., : (w - 1) * sw + 1]
    return x


def _transposed(
    g: Tensor,
    weight: Tensor,
    size: tuple[int, int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """The transposed map of a convolution, with output height and width ``size``."""
    g = insert_zeros(g, stride)
    pads = []
    for axis in (1, 0):
        span = dilation[axis] * (weight.shape[2 + axis] - 1)
        before = span - padding[axis]
        pads += [before, size[axis] + span - g.shape[2 + axis] - before]
    left, right, top, bottom = pads
    if left == right >= 0 and top == bottom >= 0:
        return F.conv2d(g, flipped(weight, groups), None, 1, (top, left), dilation, groups)
    # A negative pad crops: the convolution had thrown those rows away.
    return F.conv2d(F.pad(g, pads), flipped(weight, groups), None, 1, 0, dilation, groups)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    """A plain convolution stays; a transposed one is rewritten."""
    if not transposed:
        return NotImplemented
    size = tuple(
        (x.shape[2 + a] - 1) * stride[a]
        - 2 * padding[a]
        + dilation[a] * (weight.shape[2 + a] - 1)
        + output_padding[a]
        + 1
        for a in (0, 1)
    )
    y = _transposed(x, weight, (size[0], size[1]), stride, padding, dilation, groups)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def convolution_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor | None, None, None]:
    """The derivative by the input; weights are constants here."""
    if output_mask[1] or output_mask[2]:
        raise UnsupportedOpError(
            "convolution_backward: weights are constants; call requires_grad_(False) on the module"
        )
    if transposed:
        return F.conv2d(g, weight, None, stride, padding, dilation, groups), None, None
    size = (x.shape[2], x.shape[3])
    return _transposed(g, weight, size, stride, padding, dilation, groups), None, None


LOWERINGS: dict[Any, Any] = {
    _aten.convolution.default: convolution,
    _aten.convolution_backward.default: convolution_backward,
}
