"""Pooling: maxima as a running maximum of strided slices, averages as matrices.

TensorRT's parser refuses a max-pool with an indices output, so the derivative finds the first maximum again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from prism_engines.lowerings.convolution import insert_zeros
from prism_engines.lowerings.resize import Axis, axis_matrix, separable, separable_backward

_aten: Any = torch.ops.aten
Tensor = torch.Tensor


def _pair(value: list[int], default: list[int] | None = None) -> list[int]:
    value = list(value) or list(default or ())
    return value * 2 if len(value) == 1 else value


def _offsets(kernel: list[int], dilation: list[int]) -> list[tuple[int, int]]:
    return [(i * dilation[0], j * dilation[1]) for i in range(kernel[0]) for j in range(kernel[1])]


def _slice(x: Tensor, offset: tuple[int, int], stride: list[int], size: tuple[int, int]) -> Tensor:
    (top, left), (h, w) = offset, size
    return x[:, :, top : top + (h - 1) * stride[0] + 1 : stride[0], left : left + (w - 1) * stride[1] + 1 : stride[1]]


def _padded(
    x: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], ceil: bool
) -> Any:
    """The padded input and the output's height and width, as ``torch.nn.MaxPool2d`` defines it."""
    out, pads = [], []
    for a in (0, 1):
        span = dilation[a] * (kernel[a] - 1) + 1
        free = x.shape[2 + a] + 2 * padding[a] - span
        size = -(-free // stride[a]) + 1 if ceil else free // stride[a] + 1
        if ceil and (size - 1) * stride[a] >= x.shape[2 + a] + padding[a]:
            size -= 1  # a window that starts in the padding after the end does not count
        out.append(size)
        pads.append((padding[a], max(padding[a], (size - 1) * stride[a] + span - x.shape[2 + a] - padding[a])))
    lowest = torch.finfo(x.dtype).min
    return F.pad(x, (*pads[1], *pads[0]), value=lowest), (out[0], out[1]), pads


def max_pool2d(
    x: Tensor,
    kernel: list[int],
    stride: list[int] = (),  # type: ignore[assignment]
    padding: list[int] = (0,),  # type: ignore[assignment]
    dilation: list[int] = (1,),  # type: ignore[assignment]
    ceil: bool = False,
) -> tuple[Tensor, Tensor]:
    """The running maximum; no indices, for the derivative does without."""
    kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
    stride = _pair(stride, kernel)
    wide, size, _ = _padded(x, kernel, stride, padding, dilation, ceil)
    parts = [_slice(wide, offset, stride, size) for offset in _offsets(kernel, dilation)]
    top = parts[0]
    for part in parts[1:]:
        top = torch.maximum(top, part)
    return top, torch.zeros_like(top, dtype=torch.int64)


def max_pool2d_backward(
    g: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil: bool,
    indices: Tensor,
) -> Tensor:
    """Each window gives its derivative to its first maximum, in the order aten scans it."""
    kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
    stride = _pair(stride, kernel)
    wide, size, pads = _padded(x, kernel, stride, padding, dilation, ceil)
    top, _ = max_pool2d(x, kernel, stride, padding, dilation, ceil)
    free, total = torch.ones_like(top), None
    for offset in _offsets(kernel, dilation):
        takes = torch.where(_slice(wide, offset, stride, size) == top, free, torch.zeros_like(free))
        free = free - takes
        (h, w), taken = size, insert_zeros(g * takes, stride)
        spread = taken[:, :, : (h - 1) * stride[0] + 1, : (w - 1) * stride[1] + 1]
        after = [wide.shape[2 + a] - offset[a] - spread.shape[2 + a] for a in (0, 1)]
        part = F.pad(spread, (offset[1], after[1], offset[0], after[0]))
        total = part if total is None else total + part
    assert total is not None
    (top_pad, _), (left_pad, _) = pads
    return total[:, :, top_pad : top_pad + x.shape[2], left_pad : left_pad + x.shape[3]]


def _average(
    x: Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil: bool, count: bool, divisor: int | None
) -> list[Tensor]:
    def along(a: int) -> Axis:
        # A given divisor divides sums, also those of windows that the border cuts; once, so in the first axis.
        fixed = None if divisor is None else divisor if a == 0 else 1
        args = ([1, kernel[a]], [1, stride[a]], [0, padding[a]], ceil, count, fixed)
        return lambda e: F.avg_pool2d(e.unsqueeze(2), *args).squeeze(2)

    return [axis_matrix(along(a), x.shape[2 + a], x) for a in (0, 1)]


def _average_arguments(
    kernel: list[int],
    stride: list[int] = (),  # type: ignore[assignment]
    padding: list[int] = (0,),  # type: ignore[assignment]
    ceil: bool = False,
    count: bool = True,
    divisor: int | None = None,
) -> tuple[list[int], list[int], list[int], bool, bool, int | None]:
    kernel = _pair(kernel)
    return kernel, _pair(stride, kernel), _pair(padding), ceil, count, divisor


def avg_pool2d(x: Tensor, *arguments: Any) -> Tensor:
    """An average over a window is an average over each axis."""
    return separable(x, *_average(x, *_average_arguments(*arguments)))


def avg_pool2d_backward(g: Tensor, x: Tensor, *arguments: Any) -> Tensor:
    """The transposed matrices."""
    return separable_backward(g, *_average(x, *_average_arguments(*arguments)))


def _adaptive(x: Tensor, size: list[int]) -> list[Tensor]:
    def along(out: int) -> Axis:
        return lambda e: F.adaptive_avg_pool1d(e, out)

    return [axis_matrix(along(size[a]), x.shape[2 + a], x) for a in (0, 1)]


def adaptive_avg_pool2d(x: Tensor, size: list[int]) -> Tensor:
    """To one pixel it is a mean."""
    return x.mean((2, 3), keepdim=True) if list(size) == [1, 1] else separable(x, *_adaptive(x, size))


def adaptive_avg_pool2d_backward(g: Tensor, x: Tensor) -> Tensor:
    """The transposed matrices."""
    return separable_backward(g, *_adaptive(x, [g.shape[2], g.shape[3]]))


LOWERINGS: dict[Any, Any] = {
    _aten.max_pool2d_with_indices.default: max_pool2d,
    _aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
    _aten.avg_pool2d.default: avg_pool2d,
    _aten.avg_pool2d_backward.default: avg_pool2d_backward,
    _aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    _aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
}
