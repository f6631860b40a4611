"""A random view, or its transpose: two small matrix products a tile, their matrices made on the way from the box."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# (Triton reads a kernel's annotations itself and takes only its own.)
from __future__ import annotations

import torch
import triton
import triton.language as tl

from prism_kernels._triton._run import run, vector

# A tile of the result. It reads what it covers of the source and one filter's width more: of 64 to 128 pixels that is
# 8 % in all (half precision, whose rows are read in steps of 8), of 512 to 224 it is 7 %. Narrower tiles miss 10 %.
TALL, WIDE = 32, 64
# Of the source, at a time, by 8 warps: 166 to 192 registers. With 4 warps float32 spills up to 136 bytes, with 32
# columns or 16 rows still 24 to 108.
ROWS, COLUMNS, WARPS = 32, 64, 8


@triton.jit
def weights(target, source, start, step, flip, size_in, size_out, ADJOINT: tl.constexpr):
    """Filter weights of each pair; ``target`` and ``source`` are 2-d and broadcast.

    An output's centre is split into a pixel and the rest: a float32 centre near pixel 500 is 3e-5 wrong, and so would
    be its weights. Their sum is that of two arithmetic series.
    """
    output, pixel = (source, target) if ADJOINT else (target, source)
    mirrored = tl.where(flip, size_out - 1 - output, output)
    centre = start + (mirrored.to(tl.float64) + 0.5) * step
    whole = tl.floor(centre)
    part = (centre - whole).to(tl.float32) - 0.5
    support = tl.maximum(step, 1.0).to(tl.float32)
    inverse = 1.0 / support
    near = tl.floor(part)
    left = tl.maximum(-whole.to(tl.float32), tl.floor(part - support) + 1.0)
    right = tl.minimum((size_in - 1 - whole).to(tl.float32), tl.ceil(part + support) - 1.0)
    below = tl.maximum(near - left + 1.0, 0.0)
    above = tl.maximum(right - near, 0.0)
    total = below * (1.0 + ((left + near) * 0.5 - part) * inverse)
    total += above * (1.0 - ((near + 1.0 + right) * 0.5 - part) * inverse)
    share = tl.where(output < size_out, 1.0 / total, 0.0)
    distance = tl.abs((pixel - whole.to(tl.int32)).to(tl.float32) - part) * inverse
    return tl.maximum(1.0 - distance, 0.0) * share


@triton.jit
def span(first, last, start, step, flip, size_in, size_out, ADJOINT: tl.constexpr):
    """First and past the last source element that the targets from ``first`` to ``last`` need."""
    support = tl.maximum(step, 1.0)
    if ADJOINT:
        low = tl.floor((first + 0.5 - support - start) / step - 0.5).to(tl.int32) + 1
        high = tl.ceil((last + 0.5 + support - start) / step - 0.5).to(tl.int32)
        end = tl.minimum(high, size_out)
        low = tl.maximum(low, 0)
        first, past = tl.where(flip, size_out - end, low), tl.where(flip, size_out - low, end)
    else:
        left = tl.where(flip, size_out - 1 - last, first)
        right = tl.where(flip, size_out - 1 - first, last)
        low = tl.floor(start + (left + 0.5) * step - support - 0.5).to(tl.int32) + 1
        high = tl.ceil(start + (right + 0.5) * step + support - 0.5).to(tl.int32)
        first, past = tl.maximum(low, 0), tl.minimum(high, size_in)
    return first, past


@triton.jit
def view_kernel(
    source,
    boxes,
    scale,
    shift,
    target,
    channels,
    height,
    width,
    size,
    ADJOINT: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FROM: tl.constexpr,
    TO: tl.constexpr,
):
    """A tile of one channel of one sample: rows and columns of the source in chunks, ``R (x C)`` summed up."""
    plane = tl.program_id(0)
    box = boxes + plane // channels * 5
    top, tall = tl.load(box).to(tl.float64), tl.load(box + 1).to(tl.float64) / size
    left, wide = tl.load(box + 2).to(tl.float64), tl.load(box + 3).to(tl.float64) / size
    flip = tl.load(box + 4) >= 0.5
    if ADJOINT:
        rows_in, columns_in, rows_out, columns_out = size, size, height, width
    else:
        rows_in, columns_in, rows_out, columns_out = height, width, size, size
    # A product with a constant tells the compiler that rows start, and end, at multiples of a vector.
    pitch, pitch_out = columns_in // FROM * FROM, columns_out // TO * TO
    source += plane.to(tl.int64) * rows_in * pitch
    target += plane.to(tl.int64) * rows_out * pitch_out
    row, column = tl.program_id(1) * TALL, tl.program_id(2) * WIDE
    last_row = tl.minimum(row + TALL, rows_out) - 1
    last_column = tl.minimum(column + WIDE, columns_out) - 1
    rows, columns = row + tl.arange(0, TALL), column + tl.arange(0, WIDE)
    low, high = span(row, last_row, top, tall, False, height, size, ADJOINT)
    first, end = span(column, last_column, left, wide, flip, width, size, ADJOINT)
    first = first // FROM * FROM
    end = tl.minimum((end + FROM - 1) // FROM, columns_in // FROM) * FROM
    result = tl.full([TALL, WIDE], 0.0, tl.float32)
    for i in range(low, high, ROWS):
        ys = i + tl.arange(0, ROWS)
        part = tl.full([ROWS, WIDE], 0.0, tl.float32)
        for j in range(first, end, COLUMNS):
            xs = j + tl.arange(0, COLUMNS)
            keep = (ys < high)[:, None] & (xs < end)[None, :]
            x = tl.load(source + ys[:, None] * pitch + xs[None, :], mask=keep, other=0.0).to(tl.float32)
            across = weights(columns[None, :], xs[:, None], left, wide, flip, width, size, ADJOINT)
            part = tl.dot(x, across, part, input_precision="tf32x3")
        down = weights(rows[:, None], ys[None, :], top, tall, False, height, size, ADJOINT)
        result = tl.dot(down, part, result, input_precision="tf32x3")
    channel = plane % channels
    result = result * tl.load(scale + channel)
    if not ADJOINT:
        result += tl.load(shift + channel)
    keep = (rows < rows_out)[:, None] & (columns < pitch_out)[None, :]
    place = target + rows[:, None] * pitch_out + columns[None, :]
    tl.store(place, result.to(target.dtype.element_ty), mask=keep)


def launch(
    images: torch.Tensor, boxes: torch.Tensor, size: int, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Views (n, c, size, size); images that are not contiguous are copied first."""
    out = images.new_empty(*images.shape[:2], size, size)
    _launch(images.contiguous(), boxes, scale, shift, out, (images.shape[2], images.shape[3]), size, False)
    return out


def launch_adjoint(
    gradient: torch.Tensor, boxes: torch.Tensor, height: int, width: int, scale: torch.Tensor
) -> torch.Tensor:
    """Gradient by the images (n, c, height, width); gradients that are not contiguous are copied first."""
    out = gradient.new_empty(*gradient.shape[:2], height, width)
    _launch(gradient.contiguous(), boxes, scale, None, out, (height, width), gradient.shape[2], True)
    return out


def _launch(
    source: torch.Tensor,
    boxes: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor | None,
    target: torch.Tensor,
    size_in: tuple[int, int],
    size: int,
    adjoint: bool,
) -> None:
    if not target.numel():
        return
    run(
        view_kernel,
        (target.shape[0] * target.shape[1], triton.cdiv(target.shape[2], TALL), triton.cdiv(target.shape[3], WIDE)),
        WARPS,
        source=source,
        boxes=boxes.contiguous(),
        scale=scale.contiguous(),
        shift=None if shift is None else shift.contiguous(),
        target=target,
        channels=target.shape[1],
        height=size_in[0],
        width=size_in[1],
        size=size,
        ADJOINT=adjoint,
        TALL=TALL,
        WIDE=WIDE,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        FROM=vector((source.dtype,), source.shape[3]),
        TO=vector((target.dtype,), target.shape[3]),
    )
