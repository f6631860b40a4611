"""Moves of data: shuffles as reshapes, derivatives of slices as padding, rolls as concatenations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

_aten: Any = torch.ops.aten
Tensor = torch.Tensor


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """(n, c·f², h, w) to (n, c, h·f, w·f)."""
    n, c, h, w = x.shape
    y = x.reshape(n, c // factor**2, factor, factor, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // factor**2, h * factor, w * factor)


def pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    """(n, c, h·f, w·f) to (n, c·f², h, w)."""
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // factor, factor, w // factor, factor).permute(0, 1, 3, 5, 2, 4)
    return y.reshape(n, c * factor**2, h // factor, w // factor)


def _pad_axis(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    pads = [0] * (2 * (x.dim() - 1 - dim)) + [before, after]
    return F.pad(x, pads)


def slice_backward(g: Tensor, sizes: list[int], dim: int, start: int, end: int, step: int) -> Tensor:
    """Zeros around what the slice took, and between it when it skipped."""
    dim, size = dim % len(sizes), sizes[dim]
    start = min(max(start + size if start < 0 else start, 0), size)
    if step > 1:
        n = g.shape[dim]
        spread = _pad_axis(g.unsqueeze(dim + 1), dim + 1, 0, step - 1)
        g = spread.flatten(dim, dim + 1).narrow(dim, 0, (n - 1) * step + 1)
    return _pad_axis(g, dim, start, size - start - g.shape[dim])


def select_backward(g: Tensor, sizes: list[int], dim: int, index: int) -> Tensor:
    """A slice of one element."""
    dim = dim % len(sizes)
    index = index % sizes[dim]
    return slice_backward(g.unsqueeze(dim), sizes, dim, index, index + 1, 1)


def roll(x: Tensor, shifts: list[int], dims: list[int] = ()) -> Tensor:  # type: ignore[assignment]
    """The end before the beginning, axis by axis."""
    if not dims:
        return roll(x.reshape(-1), shifts, [0]).reshape(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        if shift % size:
            cut = size - shift % size
            x = torch.cat([x.narrow(dim, cut, size - cut), x.narrow(dim, 0, cut)], dim)
    return x


def unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    """One select each."""
    return [x.select(dim, i) for i in range(x.shape[dim])]


def fill(x: Tensor, value: float) -> Tensor:
    """A constant tensor of the same shape."""
    return torch.full_like(x, value)


LOWERINGS: dict[Any, Any] = {
    _aten.pixel_shuffle.default: pixel_shuffle,
    _aten.pixel_unshuffle.default: pixel_unshuffle,
    _aten.slice_backward.default: slice_backward,
    _aten.select_backward.default: select_backward,
    _aten.roll.default: roll,
    _aten.unbind.int: unbind,
    _aten.fill.Scalar: fill,
}
