"""Classifier-free guidance, prediction conversion and the correction's sum of squares in one reading."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# (Triton reads a kernel's annotations itself and takes only its own.)
from __future__ import annotations

import torch
import triton
import triton.language as tl

from prism_kernels._triton._run import run, vector, warps

CHUNK = 2048


@triton.jit
def guided_combine_kernel(
    latents,
    prediction,
    denoised,
    squares,
    n,
    count,
    chunks,
    of_latents,
    of_prediction,
    guidance_scale,
    READS_LATENTS: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """One chunk of one sample a program; partial sums are added outside, in a fixed order, not by atomics."""
    sample = tl.program_id(0)
    chunk = tl.program_id(1)
    # A product with a constant tells the compiler that samples start, and end, at multiples of VEC elements.
    start = sample.to(tl.int64) * (count // VEC) * VEC
    conditional = (sample + n).to(tl.int64) * (count // VEC) * VEC
    here = chunk * BLOCK + tl.arange(0, BLOCK)
    keep = here < (count // VEC) * VEC
    free = tl.load(prediction + start + here, mask=keep, other=0.0).to(tl.float32)
    guided = tl.load(prediction + conditional + here, mask=keep, other=0.0).to(tl.float32)
    change = guidance_scale * (guided - free)
    x = of_prediction * (free + change)
    if READS_LATENTS:
        x += of_latents * tl.load(latents + start + here, mask=keep, other=0.0).to(tl.float32)
    tl.store(denoised + start + here, x.to(denoised.dtype.element_ty), mask=keep)
    correction = of_prediction * change
    tl.store(squares + sample * chunks + chunk, tl.sum(correction * correction, axis=0))


def launch(
    latents: torch.Tensor, prediction: torch.Tensor, guidance_scale: float, of_latents: float, of_prediction: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Denoised latents (n, ...) and each correction's sum of squares (n,)."""
    latents, prediction = latents.contiguous(), prediction.contiguous()
    n, count = len(latents), latents[:1].numel()
    denoised = torch.empty_like(latents)
    if not count:
        return denoised, latents.new_zeros(n, dtype=torch.float32)
    block = min(triton.next_power_of_2(count), CHUNK)
    chunks = triton.cdiv(count, block)
    squares = latents.new_empty(n, chunks, dtype=torch.float32)
    run(
        guided_combine_kernel,
        (n, chunks),
        warps(block, 16),
        latents=latents,
        prediction=prediction,
        denoised=denoised,
        squares=squares,
        n=n,
        count=count,
        chunks=chunks,
        of_latents=of_latents,
        of_prediction=of_prediction,
        guidance_scale=guidance_scale,
        READS_LATENTS=of_latents != 0.0,
        BLOCK=block,
        VEC=vector((latents.dtype, prediction.dtype), count),
    )
    return denoised, squares.sum(1)
