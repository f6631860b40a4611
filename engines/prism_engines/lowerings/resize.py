"""Resizing and average pooling as one fixed matrix an axis: linear, separable, and differentiable by transposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

_aten: Any = torch.ops.aten
Tensor = torch.Tensor
Axis = Callable[[Tensor], Tensor]


def axis_matrix(resample: Axis, size: int, like: Tensor) -> Tensor:
    """Matrix (out, size) of a linear map of vectors, found by applying it to the unit vectors."""
    eye = torch.eye(size, dtype=torch.float64 if like.dtype == torch.float64 else torch.float32, device=like.device)
    return resample(eye.view(size, 1, size)).reshape(size, -1).t().contiguous().to(like.dtype)


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ x @ columnsᵀ`` on the last two axes."""
    return rows @ (x @ columns.t())


def separable_backward(g: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The transposed map."""
    return rows.t() @ (g @ columns)


def _nearest(size_in: int, size_out: int) -> Axis:
    return lambda x: F.interpolate(x, size=size_out, mode="nearest")


def _bilinear(size_out: int, align_corners: bool, antialias: bool) -> Axis:
    def resample(x: Tensor) -> Tensor:
        # A second axis of one element: antialiasing exists for two axes only.
        wide = x.unsqueeze(2)
        return F.interpolate(
            wide, size=(1, size_out), mode="bilinear", align_corners=align_corners, antialias=antialias
        ).squeeze(2)

    return resample


def _matrices(make: Callable[[int, int], Axis], like: Tensor, sizes: tuple[int, int], out: list[int]) -> list[Tensor]:
    # The unit vectors are constants: the maps run while tracing and leave no node in the graph.
    return [axis_matrix(make(n, m), n, like) for n, m in zip(sizes, out, strict=True)]


def upsample_nearest2d_backward(
    g: Tensor,
    output_size: list[int],
    input_size: list[int],
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:
    """Whole multiples sum their blocks; anything else takes two matrices."""
    n, c, h, w = input_size
    if output_size[0] % h == 0 and output_size[1] % w == 0:
        return g.reshape(n, c, h, output_size[0] // h, w, output_size[1] // w).sum((3, 5))
    return separable_backward(g, *_matrices(_nearest, g, (h, w), output_size))


def _bilinear_forward(antialias: bool) -> Callable[..., Tensor]:
    def forward(x: Tensor, size: list[int], align: bool, sh: float | None = None, sw: float | None = None) -> Tensor:
        pair = _matrices(lambda _, out: _bilinear(out, align, antialias), x, (x.shape[2], x.shape[3]), size)
        return separable(x, *pair)

    return forward


def _bilinear_backward(antialias: bool) -> Callable[..., Tensor]:
    def backward(
        g: Tensor, out: list[int], size: list[int], align: bool, sh: float | None = None, sw: float | None = None
    ) -> Tensor:
        pair = _matrices(lambda _, o: _bilinear(o, align, antialias), g, (size[2], size[3]), out)
        return separable_backward(g, *pair)

    return backward


LOWERINGS: dict[Any, Any] = {
    _aten.upsample_nearest2d_backward.default: upsample_nearest2d_backward,
    _aten.upsample_bilinear2d.default: _bilinear_forward(False),
    _aten.upsample_bilinear2d_backward.default: _bilinear_backward(False),
    _aten._upsample_bilinear2d_aa.default: _bilinear_forward(True),
    _aten._upsample_bilinear2d_aa_backward.default: _bilinear_backward(True),
}
