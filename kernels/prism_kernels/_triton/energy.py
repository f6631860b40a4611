"""Energy of logits and its gradient: each row is read once and stays in registers between the two results."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# (Triton reads a kernel's annotations itself and takes only its own.)
from __future__ import annotations

import torch
import triton
import triton.language as tl

from prism_kernels._triton._run import run, vector, warps

# 64 float32 a thread of 16 warps, which has 128 registers. Covers ImageNet-21k; longer rows are read twice.
MAX_BLOCK = 32768
CHUNK = 8192


@triton.jit
def energy_kernel(
    logits,
    labels,
    value,
    gradient,
    n,
    k,
    stride,
    class_weight,
    lse_weight,
    inverse_temperature,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """ROWS rows a program; WHOLE when a row fits in BLOCK, else an online softmax and a second reading."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = rows < n
    label = tl.load(labels + rows, mask=live, other=-1)
    # Rows start at multiples of VEC elements, which the compiler cannot know: a stride such as 1000 is no multiple
    # of 16. Written as a product with a constant, start and end vectorise. 64 bits: n·k may pass 2^31.
    start = rows.to(tl.int64)[:, None] * (stride // VEC) * VEC
    out = rows.to(tl.int64)[:, None] * (k // VEC) * VEC
    end = (k // VEC) * VEC
    # Its own reading, two or four bytes a row: picking it out of the row would keep the logits alive beside their
    # exponentials, which does not fit the registers. A label that names no class reads nothing.
    named = live & (label >= 0) & (label < k)
    own = tl.load(logits + rows.to(tl.int64) * stride + label, mask=named, other=0.0).to(tl.float32)
    cols = tl.arange(0, BLOCK)[None, :]
    if WHOLE:
        keep = live[:, None] & (cols < end)
        x = tl.load(logits + start + cols, mask=keep, other=float("-inf")).to(tl.float32)
        top = tl.max(x, axis=1)
        weights = tl.exp((x - top[:, None]) * inverse_temperature)
        total = tl.sum(weights, axis=1)
        scale = lse_weight * inverse_temperature / total
        slope = scale[:, None] * weights + tl.where(cols == label[:, None], class_weight, 0.0)
        tl.store(gradient + out + cols, slope, mask=keep)
    else:
        top = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.full([ROWS], 0.0, tl.float32)
        for first in range(0, k, BLOCK):
            here = first + cols
            x = tl.load(logits + start + here, mask=live[:, None] & (here < end), other=float("-inf")).to(tl.float32)
            higher = tl.maximum(top, tl.max(x, axis=1))
            # Before the first finite logit both are -inf, whose difference is NaN: nothing is summed yet then.
            shrink = tl.where(top == float("-inf"), 0.0, tl.exp((top - higher) * inverse_temperature))
            part = tl.exp((x - higher[:, None]) * inverse_temperature)
            part = tl.where(x == float("-inf"), 0.0, part)
            total = total * shrink + tl.sum(part, axis=1)
            top = higher
        scale = lse_weight * inverse_temperature / total
        for first in range(0, k, BLOCK):
            here = first + cols
            keep = live[:, None] & (here < end)
            x = tl.load(logits + start + here, mask=keep, other=float("-inf")).to(tl.float32)
            slope = scale[:, None] * tl.exp((x - top[:, None]) * inverse_temperature)
            slope += tl.where(here == label[:, None], class_weight, 0.0)
            tl.store(gradient + out + here, slope, mask=keep)
    energy = class_weight * own + lse_weight * (top * inverse_temperature + tl.log(total))
    tl.store(value + rows, energy, mask=live)


def launch(
    logits: torch.Tensor, labels: torch.Tensor, class_weight: float, lse_weight: float, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Allocate the results and start the kernel; rows may be strided, their elements are made adjacent."""
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    n, k = logits.shape
    value = logits.new_empty(n, dtype=torch.float32)
    gradient = logits.new_empty(n, k, dtype=torch.float32)
    if n == 0 or k == 0:
        return value.zero_(), gradient
    block = triton.next_power_of_2(k) if k <= MAX_BLOCK else CHUNK
    rows = max(1, 256 // block)
    run(
        energy_kernel,
        (triton.cdiv(n, rows),),
        # Measured at 32768: half precision spills with 16 warps (sm_90), float32 with 32 (sm_100).
        warps(rows * block, 8, most=32 if logits.element_size() == 2 else 16),
        logits=logits,
        labels=labels.contiguous(),
        value=value,
        gradient=gradient,
        n=n,
        k=k,
        stride=logits.stride(0),
        class_weight=class_weight,
        lse_weight=lse_weight,
        inverse_temperature=1.0 / temperature,
        ROWS=rows,
        BLOCK=block,
        VEC=vector((logits.dtype,), logits.stride(0), k),
        WHOLE=k <= MAX_BLOCK,
    )
    return value, gradient
