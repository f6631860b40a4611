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
    """Each element of the last two axes followed by ``stride - 1`` zeros: (n, c, h·s, w·s).

    An enlarged copy times a mask: padding and slicing said the same, but took 40 % of an OpenVINO engine's time.
    """
    if stride == [1, 1]:
        return x
    size = [x.shape[2] * stride[0], x.shape[3] * stride[1]]
    rows, columns = (
        torch.tensor([float(i % s == 0) for i in range(n)], dtype=x.dtype, device=x.device)
        for n, s in zip(size, stride, strict=True)
    )
    enlarged: Tensor = _aten.upsample_nearest2d(x, size)
    return enlarged * (rows.view(-1, 1) * columns)


def _pads(offsets: list[tuple[int, int]], sizes: list[tuple[int, int]]) -> tuple[list[int], bool]:
    """``F.pad``'s amounts for taps at (first, last) offsets and (input, output) sizes an axis; do both ends agree?"""
    amounts: list[int] = []
    for (low, high), (size_in, size_out) in zip(offsets[::-1], sizes[::-1], strict=True):
        amounts += [-low, size_out - 1 + high - (size_in - 1)]
    left, right, top, bottom = amounts
    return amounts, left == right >= 0 and top == bottom >= 0


def _correlate(x: Tensor, weight: Tensor, low: list[int], size: list[int], dilation: list[int], groups: int) -> Tensor:
    """Convolution whose first tap lies ``low`` from each of ``size`` outputs an axis; a negative pad crops."""
    high = [low[a] + dilation[a] * (weight.shape[2 + a] - 1) for a in (0, 1)]
    offsets = [(low[a], high[a]) for a in (0, 1)]
    pads, symmetric = _pads(offsets, [(x.shape[2 + a], size[a]) for a in (0, 1)])
    if symmetric:
        return F.conv2d(x, weight, None, 1, (pads[2], pads[0]), dilation, groups)
    return F.conv2d(F.pad(x, pads), weight, None, 1, 0, dilation, groups)


def _taps(size: int, stride: int, padding: int, reach: int) -> list[list[list[float]]]:
    """Which tap ``k`` output phase ``r`` takes at offset ``i``: 0 or 1, by [r][i + reach][k]."""
    offsets = range(-reach, reach + 1)
    return [[[float(r + padding - k == i * stride) for k in range(size)] for i in offsets] for r in range(stride)]


def _phase_weight(weight: Tensor, stride: int, padding: list[int]) -> tuple[Tensor, int]:
    """Weight (in·s², out, d, d) whose output, shuffled, is the transposed map with stride ``s``; and its first offset.

    Output ``s·q + r`` sums ``g[q + (r + p - k) / s] · W[k]`` over the taps ``k`` for which that index is whole.
    """
    sizes = weight.shape[2:]
    extremes = [r + p - k for n, p in zip(sizes, padding, strict=True) for r in (0, stride - 1) for k in (0, n - 1)]
    reach = max(abs(e) // stride for e in extremes)
    rows, columns = (
        torch.tensor(_taps(n, stride, p, reach), dtype=weight.dtype, device=weight.device)
        for n, p in zip(sizes, padding, strict=True)
    )
    phases = torch.einsum("oikm,rak,cbm->ircoab", weight, rows, columns)
    return phases.reshape(-1, weight.shape[0], 2 * reach + 1, 2 * reach + 1), -reach


def _transposed(
    g: Tensor,
    weight: Tensor,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """The transposed map of a convolution, with output height and width ``size``."""
    if groups == 1 and dilation == [1, 1] and stride == [2, 2]:
        phases, low = _phase_weight(weight, 2, padding)
        half = [-(-n // 2) for n in size]
        y = F.pixel_shuffle(_correlate(g, phases, [low, low], half, [1, 1], 1), 2)
        return y if half == [n / 2 for n in size] else y[:, :, : size[0], : size[1]]
    first = [padding[a] - dilation[a] * (weight.shape[2 + a] - 1) for a in (0, 1)]
    return _correlate(insert_zeros(g, stride), flipped(weight, groups), first, size, dilation, groups)


def _pairs(*values: list[int]) -> list[list[int]]:
    """One number for both axes, as ``padding="valid"`` gives, as two."""
    return [list(value) * 2 if len(value) == 1 else list(value) for value in values]


def _lifted(x: Tensor, weight: Tensor, *values: list[int]) -> list[Any]:
    """A convolution of one axis as one of two, the first of length one."""
    stride, padding, dilation, output_padding = values
    return [x.unsqueeze(2), weight.unsqueeze(2), [1, *stride], [0, *padding], [1, *dilation], [0, *output_padding]]


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
        return NotImplemented  # type: ignore[no-any-return]
    if x.dim() == 3:
        x, weight, stride, padding, dilation, output_padding = _lifted(
            x, weight, stride, padding, dilation, output_padding
        )
        return convolution(x, weight, bias, stride, padding, dilation, True, output_padding, groups).squeeze(2)
    if x.dim() != 4:
        raise UnsupportedOpError("convolution: transposed over three axes; there is a form for one and two")
    stride, padding, dilation, output_padding = _pairs(stride, padding, dilation, output_padding)
    size = [
        (x.shape[2 + a] - 1) * stride[a]
        - 2 * padding[a]
        + dilation[a] * (weight.shape[2 + a] - 1)
        + output_padding[a]
        + 1
        for a in (0, 1)
    ]
    y = _transposed(x, weight, size, stride, padding, dilation, groups)
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
    if x.dim() == 3:
        x, weight, stride, padding, dilation, output_padding = _lifted(
            x, weight, stride, padding, dilation, output_padding
        )
        g = g.unsqueeze(2)
        given = (None, stride, padding, dilation, transposed, output_padding, groups, output_mask)
        lifted, _, _ = convolution_backward(g, x, weight, *given)
        return lifted if lifted is None else lifted.squeeze(2), None, None
    if x.dim() != 4:
        return NotImplemented  # type: ignore[no-any-return]
    stride, padding, dilation = _pairs(stride, padding, dilation)
    if transposed:
        return F.conv2d(g, weight, None, stride, padding, dilation, groups), None, None
    return _transposed(g, weight, [x.shape[2], x.shape[3]], stride, padding, dilation, groups), None, None


LOWERINGS: dict[Any, Any] = {
    _aten.convolution.default: convolution,
    _aten.convolution_backward.default: convolution_backward,
}
