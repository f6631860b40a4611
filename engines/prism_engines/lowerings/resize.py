"""Resizing and average pooling as one fixed matrix an axis: linear, separable, and differentiable by transposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

_aten: Any = torch.ops.aten
Tensor = torch.Tensor
Axis = Callable[[Tensor], Tensor]


def axis_matrix(resample: Axis, size: int, like: Tensor) -> Tensor:
    """Matrix (out, size) of a linear map of vectors, found by applying it to the unit vectors.

    The map runs outside of the trace, as the operator that it is: inside it would itself be lowered, to itself.
    """
    with _disable_current_modes():
        eye = torch.eye(size, dtype=torch.float64 if like.dtype == torch.float64 else torch.float32)
        matrix = resample(eye.view(size, 1, size)).reshape(size, -1).t().contiguous()
        return matrix.to(like.device, like.dtype)


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ x @ columnsᵀ`` on the last two axes."""
    return rows @ (x @ columns.t())


def separable_backward(g: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The transposed map."""
    return rows.t() @ (g @ columns)


def _nearest(size_out: int, scale: float | None) -> Axis:
    # With two axes as in the forward pass: aten's rounding differs between its operators.
    return lambda x: _aten.upsample_nearest2d.default(x.unsqueeze(2), [1, size_out], None, scale).squeeze(2)


def _bilinear(size_out: int, scale: float | None, align_corners: bool, antialias: bool) -> Axis:
    resize = _aten._upsample_bilinear2d_aa.default if antialias else _aten.upsample_bilinear2d.default
    # A second axis of one element: antialiasing exists for two axes only.
    return lambda x: resize(x.unsqueeze(2), [1, size_out], align_corners, None, scale).squeeze(2)


def upsample_nearest2d_backward(
    g: Tensor,
    output_size: list[int],
    input_size: list[int],
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:
    """Whole multiples sum their blocks; anything else takes two matrices."""
    n, c, h, w = input_size
    axes = [(h, output_size[0], scales_h), (w, output_size[1], scales_w)]
    # A given scale decides which pixel is nearest, also where it is not the ratio of the sizes.
    if all(out == size * (out // size) and scale in (None, out // size) for size, out, scale in axes):
        return g.reshape(n, c, h, output_size[0] // h, w, output_size[1] // w).sum((3, 5))
    return separable_backward(g, *(axis_matrix(_nearest(out, scale), size, g) for size, out, scale in axes))


def _bilinear_matrices(
    antialias: bool, like: Tensor, sizes: list[int], out: list[int], align: bool, scales: tuple[float | None, ...]
) -> list[Tensor]:
    axes = zip(sizes, out, scales, strict=True)
    return [axis_matrix(_bilinear(m, scale, align, antialias), n, like) for n, m, scale in axes]


def _bilinear_forward(antialias: bool) -> Callable[..., Tensor]:
    def forward(x: Tensor, size: list[int], align: bool, sh: float | None = None, sw: float | None = None) -> Tensor:
        return separable(x, *_bilinear_matrices(antialias, x, list(x.shape[2:]), size, align, (sh, sw)))

    return forward


def _bilinear_backward(antialias: bool) -> Callable[..., Tensor]:
    def backward(
        g: Tensor, out: list[int], size: list[int], align: bool, sh: float | None = None, sw: float | None = None
    ) -> Tensor:
        return separable_backward(g, *_bilinear_matrices(antialias, g, list(size[2:]), out, align, (sh, sw)))

    return backward


LOWERINGS: dict[Any, Any] = {
    _aten.upsample_nearest2d_backward.default: upsample_nearest2d_backward,
    _aten.upsample_bilinear2d.default: _bilinear_forward(False),
    _aten.upsample_bilinear2d_backward.default: _bilinear_backward(False),
    _aten._upsample_bilinear2d_aa.default: _bilinear_forward(True),
    _aten._upsample_bilinear2d_aa_backward.default: _bilinear_backward(True),
}
