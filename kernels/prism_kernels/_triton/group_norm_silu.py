"""GroupNorm and SiLU, forward and by the input, for either order of channels and pixels in memory.

A tile is rows × columns with its columns adjacent in memory: channels × pixels of one group (NCHW), or pixels ×
channels of one or more groups (NHWC). A group that fits a tile is read once; a larger one is read twice, by one kernel
that sums up its tiles and by one that writes.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# (Triton reads a kernel's annotations itself and takes only its own.)
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from prism_kernels._triton._run import run, vector, warps

# A group of up to so many elements stays in registers: 16 float32 a thread of 32 warps, twice that for the backward.
MAX_WHOLE = 16384
TILE = 8192
SPAN = 1024  # partial sums that the finishing kernel reads at a time


@triton.jit
def locate(
    block,
    tile,
    channels,
    pixels,
    each,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUPS: tl.constexpr,
    VEC: tl.constexpr,
):
    """Offsets of a tile's elements (2-d) and which exist; the channel of each column, or row, and which exist."""
    # Products with a constant tell the compiler that rows start, and end, at multiples of VEC elements.
    down, along = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    if LAST:
        taken, pitch = GROUPS * each // VEC * VEC, channels // VEC * VEC
        blocks = channels // (GROUPS * each)
        row = tile * ROWS + down
        column = block % blocks * taken + along
        start = ((block // blocks).to(tl.int64) * pixels + row) * pitch
        keep = (row < pixels)[:, None] & (along < taken)[None, :]
        channel, known = column, along < taken
    else:
        across = (pixels + COLUMNS - 1) // COLUMNS
        row = tile // across * ROWS + down
        column = tile % across * COLUMNS + along
        # A group follows the one before it: block · each is the first channel, of all samples together.
        start = (block.to(tl.int64) * each + row) * (pixels // VEC * VEC)
        keep = (row < each)[:, None] & (column < pixels // VEC * VEC)[None, :]
        channel, known = block % (channels // each) * each + row, row < each
    return start[:, None] + column[None, :], keep, channel, known


@triton.jit
def total(x, LAST: tl.constexpr, GROUPS: tl.constexpr):
    """Sum of each group in a tile: a number, or GROUPS of them."""
    down = tl.sum(x, 0)
    return tl.sum(tl.reshape(down, [GROUPS, x.shape[1] // GROUPS]), 1) if LAST else tl.sum(down, 0)


@triton.jit
def spread(x, LAST: tl.constexpr, GROUPS: tl.constexpr, COLUMNS: tl.constexpr):
    """Each group's number at each of its columns."""
    if LAST:
        x = tl.reshape(tl.broadcast_to(x[:, None], [GROUPS, COLUMNS // GROUPS]), [1, COLUMNS])
    return x


@triton.jit
def groups_of(block, LAST: tl.constexpr, GROUPS: tl.constexpr):
    """Numbers of the groups in a tile, of all samples together."""
    if LAST:
        block = block * GROUPS + tl.arange(0, GROUPS)
    return block


@triton.jit
def activated(x, mean, rstd, w, b):
    """Normalised x, the activation's input and its sigmoid."""
    h = (x - mean) * rstd
    u = h * w + b
    return h, u, 1.0 / (1.0 + tl.exp(-u))


@triton.jit
def group_norm_silu_kernel(
    x,
    weight,
    bias,
    gradient,
    out,
    means,
    rstds,
    sums,
    partial,
    channels,
    pixels,
    each,
    tiles,
    number,
    eps,
    PART: tl.constexpr,
    BACKWARD: tl.constexpr,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUPS: tl.constexpr,
    VEC: tl.constexpr,
):
    """One tile a program; PART is the whole work of a group, only its sums, or only the writing."""
    block, tile = tl.program_id(0), tl.program_id(1)
    offset, keep, channel, known = locate(block, tile, channels, pixels, each, LAST, ROWS, COLUMNS, GROUPS, VEC)
    group = groups_of(block, LAST, GROUPS)
    v = tl.load(x + offset, mask=keep, other=0.0).to(tl.float32)
    if BACKWARD or PART == "write":
        mean, rstd = tl.load(means + group), tl.load(rstds + group)
    else:
        present = total(tl.where(keep, 1.0, 0.0), LAST, GROUPS) if PART == "sum" else number
        mean = total(v, LAST, GROUPS) / present
        centred = tl.where(keep, v - spread(mean, LAST, GROUPS, COLUMNS), 0.0)
        square = total(centred * centred, LAST, GROUPS)
        if PART == "sum":
            place = partial + (group * tiles + tile) * 3
            tl.store(place, mean)
            tl.store(place + 1, square)
            tl.store(place + 2, present)
        else:
            rstd = 1.0 / tl.sqrt(square / number + eps)
            tl.store(means + group, mean)
            tl.store(rstds + group, rstd)
    if BACKWARD or PART != "sum":
        w = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
        b = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
        # Loaded in one dimension: in two, each thread loads its channel's numbers once for every element of a vector.
        w, b = (w[None, :], b[None, :]) if LAST else (w[:, None], b[:, None])
        wide = spread(rstd, LAST, GROUPS, COLUMNS)
        h, u, sigmoid = activated(v, spread(mean, LAST, GROUPS, COLUMNS), wide, w, b)
        if BACKWARD:
            t = tl.load(gradient + offset, mask=keep, other=0.0).to(tl.float32)
            t = t * sigmoid * (1.0 + u * (1.0 - sigmoid)) * w
            if PART == "write":
                plain, along = tl.load(sums + group * 2), tl.load(sums + group * 2 + 1)
            else:
                plain, along = total(t, LAST, GROUPS), total(t * h, LAST, GROUPS)
            if PART == "sum":
                place = partial + (group * tiles + tile) * 2
                tl.store(place, plain)
                tl.store(place + 1, along)
            else:
                plain = spread(plain / number, LAST, GROUPS, COLUMNS)
                along = spread(along / number, LAST, GROUPS, COLUMNS)
                tl.store(out + offset, (wide * (t - plain - h * along)).to(out.dtype.element_ty), mask=keep)
        else:
            tl.store(out + offset, (u * sigmoid).to(out.dtype.element_ty), mask=keep)


@triton.jit
def finish_kernel(partial, means, rstds, tiles, number, eps, SPAN: tl.constexpr):
    """Mean and 1/deviation of a group from its tiles' means, squares and counts: differences of large sums lose."""
    group = tl.program_id(0)
    summed = tl.full([SPAN], 0.0, tl.float32)
    for first in range(0, tiles, SPAN):
        tile = first + tl.arange(0, SPAN)
        place = partial + (group * tiles + tile) * 3
        part = tl.load(place, mask=tile < tiles, other=0.0)
        summed += part * tl.load(place + 2, mask=tile < tiles, other=0.0)
    mean = tl.sum(summed, 0) / number
    squares = tl.full([SPAN], 0.0, tl.float32)
    for first in range(0, tiles, SPAN):
        tile = first + tl.arange(0, SPAN)
        place = partial + (group * tiles + tile) * 3
        away = tl.load(place, mask=tile < tiles, other=0.0) - mean
        squares += tl.load(place + 1, mask=tile < tiles, other=0.0)
        squares += away * away * tl.load(place + 2, mask=tile < tiles, other=0.0)
    tl.store(means + group, mean)
    tl.store(rstds + group, 1.0 / tl.sqrt(tl.sum(squares, 0) / number + eps))


@dataclass(frozen=True)
class Plan:
    """How a tensor is cut into tiles; ``whole`` when one holds whole groups."""

    last: bool
    rows: int
    columns: int
    groups: int
    blocks: int
    tiles: int
    whole: bool
    vec: int


def plan(x: torch.Tensor, groups: int) -> Plan:
    """Tiles of x (n, c, h, w), whose memory is adjacent in one of the two orders."""
    n, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    each, power = channels // groups, triton.next_power_of_2
    whole = power(each) * power(pixels) <= MAX_WHOLE
    most = MAX_WHOLE if whole else TILE
    if x.is_contiguous():
        columns = min(power(pixels), most)
        rows = min(power(each), most // columns)
        tiles = triton.cdiv(each, rows) * triton.cdiv(pixels, columns)
        return Plan(False, rows, columns, 1, n * groups, tiles, whole, vector((x.dtype,), pixels))
    # Groups of fewer than 32 channels go together, so that a pixel's part is a whole line of memory.
    joined = 1
    while each == power(each) and 2 * joined * each <= 32 and groups % (2 * joined) == 0:
        joined *= 2
    whole = whole and joined * power(each) * power(pixels) <= MAX_WHOLE
    columns = joined * power(each)
    rows = min(power(pixels), max(1, (MAX_WHOLE if whole else TILE) // columns))
    vec = vector((x.dtype,), joined * each, channels)
    return Plan(True, rows, columns, joined, n * groups // joined, triton.cdiv(pixels, rows), whole, vec)


def launch(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The result, and each group's mean and 1/deviation (n, groups), float32."""
    out = torch.empty_like(x)
    means, rstds = (x.new_empty(x.shape[0], groups, dtype=torch.float32) for _ in range(2))
    if not x.numel():
        return out, means, rstds
    cut = plan(x, groups)
    tensors = {"x": x, "weight": weight, "bias": bias, "out": out, "means": means, "rstds": rstds}
    if cut.whole:
        _run(cut, "whole", tensors, groups, eps)
        return out, means, rstds
    partial = x.new_empty(means.numel(), cut.tiles, 3, dtype=torch.float32)
    _run(cut, "sum", tensors | {"partial": partial}, groups, eps)
    number = float(x[:1].numel() // groups)
    parts = {"partial": partial, "means": means, "rstds": rstds}
    run(finish_kernel, (means.numel(),), 4, **parts, tiles=cut.tiles, number=number, eps=eps, SPAN=SPAN)
    _run(cut, "write", tensors, groups, eps)
    return out, means, rstds


def launch_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    means: torch.Tensor,
    rstds: torch.Tensor,
    groups: int,
) -> torch.Tensor:
    """Gradient by x, in its order of memory; ``gradient`` has the same."""
    out = torch.empty_like(x)
    if not x.numel():
        return out
    cut = plan(x, groups)
    tensors = {"x": x, "weight": weight, "bias": bias, "gradient": gradient, "out": out}
    tensors |= {"means": means.contiguous(), "rstds": rstds.contiguous()}
    if cut.whole:
        _run(cut, "whole", tensors, groups, 0.0)
        return out
    partial = x.new_empty(means.numel(), cut.tiles, 2, dtype=torch.float32)
    _run(cut, "sum", tensors | {"partial": partial}, groups, 0.0)
    _run(cut, "write", tensors | {"sums": partial.sum(1)}, groups, 0.0)
    return out


def _run(cut: Plan, part: str, tensors: dict[str, torch.Tensor], groups: int, eps: float) -> None:
    x = tensors["x"]
    run(
        group_norm_silu_kernel,
        (cut.blocks, cut.tiles),
        # Measured at 8192: with 8 warps the backward spills 8 bytes of float32 (NHWC, sm_90).
        warps(cut.rows * cut.columns, 16, most=32 if part == "whole" else 16),
        **{name: tensors.get(name) for name in ("gradient", "sums", "partial")} | tensors,
        channels=x.shape[1],
        pixels=x.shape[2] * x.shape[3],
        each=x.shape[1] // groups,
        tiles=cut.tiles,
        number=float(x[:1].numel() // groups),
        eps=eps,
        PART=part,
        BACKWARD="gradient" in tensors,
        LAST=cut.last,
        ROWS=cut.rows,
        COLUMNS=cut.columns,
        GROUPS=cut.groups,
        VEC=cut.vec,
    )
