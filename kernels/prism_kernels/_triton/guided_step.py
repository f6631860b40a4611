"""Guided step and solver update: one program a sample, because the step's length needs the whole gradient first."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# (Triton reads a kernel's annotations itself and takes only its own.)
from __future__ import annotations

import torch
import triton
import triton.language as tl

from prism_kernels._triton._run import run, vector, warps
from prism_kernels._triton.counter_noise import normals, words

# Up to here (Stable Diffusion 1.5: 4·64·64) the gradient stays in registers and every tensor is moved once; a larger
# sample reads its gradient a second time, from the L2 cache that the first reading filled.
MAX_HELD = 16384
CHUNK = 8192


# Seed and step change between launches: specialising on their values would compile the kernel again and again.
@triton.jit(do_not_specialize=["seed_low", "seed_high", "word"])
def guided_step_kernel(
    denoised,
    gradient,
    correction_rms,
    active,
    latents,
    previous,
    indices,
    moved,
    healthy,
    stepped,
    finite,
    count,
    scale,
    limit,
    of_latents,
    of_denoised,
    of_previous,
    of_noise,
    seed_low,
    seed_high,
    word,
    SOLVE: tl.constexpr,
    HISTORY: tl.constexpr,
    NOISE: tl.constexpr,
    HELD: tl.constexpr,
    BLOCK: tl.constexpr,
    VEC: tl.constexpr,
):
    """SOLVE also takes the solver's step, HISTORY with its previous prediction, NOISE with noise made on the way.

    HELD when two BLOCKs hold a sample.
    """
    sample = tl.program_id(0)
    # A product with a constant tells the compiler that samples start, and end, at multiples of VEC elements.
    start = sample.to(tl.int64) * (count // VEC) * VEC
    end = (count // VEC) * VEC
    cols = tl.arange(0, BLOCK)
    if HELD:
        # Two halves: the update then works on half a sample at a time and needs half the registers for the rest.
        front = tl.load(gradient + start + cols, mask=cols < end, other=0.0).to(tl.float32)
        back = tl.load(gradient + start + BLOCK + cols, mask=BLOCK + cols < end, other=0.0).to(tl.float32)
        square = tl.sum(front * front + back * back, axis=0)
    else:
        squares = tl.full([BLOCK], 0.0, tl.float32)
        for first in range(0, count, BLOCK):
            here = first + cols
            g = tl.load(gradient + start + here, mask=here < end, other=0.0).to(tl.float32)
            squares += g * g
        square = tl.sum(squares, axis=0)
    size = tl.sqrt(square / count)
    # NaN compares false; the second test matters when the caller sets no limit.
    usable = (size <= limit) & (size < float("inf"))
    factor = scale * tl.load(correction_rms + sample) / tl.maximum(size, 1e-12)
    factor = tl.where(usable & (tl.load(active + sample) != 0), factor, 0.0)
    wrong = tl.full([BLOCK], 0, tl.int32)
    for first in range(0, count, BLOCK):
        here = first + cols
        keep = here < end
        if HELD:
            push = tl.where(first == 0, front, back)
        else:
            push = tl.load(gradient + start + here, mask=keep, other=0.0).to(tl.float32)
        x = tl.load(denoised + start + here, mask=keep, other=0.0).to(tl.float32)
        # Zero, not only a zero factor: 0 · NaN is NaN.
        result = (x - factor * tl.where(usable, push, 0.0)).to(moved.dtype.element_ty)
        tl.store(moved + start + here, result, mask=keep)
        if SOLVE:
            z = of_latents * tl.load(latents + start + here, mask=keep, other=0.0).to(tl.float32)
            z += of_denoised * result.to(tl.float32)
            if HISTORY:
                z += of_previous * tl.load(previous + start + here, mask=keep, other=0.0).to(tl.float32)
            if NOISE:
                z += of_noise * normals(seed_low, seed_high, word, tl.load(indices + sample), first, BLOCK)
            rounded = z.to(stepped.dtype.element_ty)
            tl.store(stepped + start + here, rounded, mask=keep)
            wrong += tl.where(keep & ((tl.abs(rounded.to(tl.float32)) < float("inf")) == 0), 1, 0)
    tl.store(healthy + sample, usable.to(tl.uint8))
    if SOLVE:
        tl.store(finite + sample, (tl.sum(wrong, axis=0) == 0).to(tl.uint8))


def launch(
    denoised: torch.Tensor,
    gradient: torch.Tensor,
    correction_rms: torch.Tensor,
    active: torch.Tensor,
    scale: float,
    limit: float,
    latents: torch.Tensor | None = None,
    previous: torch.Tensor | None = None,
    weights: tuple[float, float, float] = (0.0, 0.0, 0.0),
    indices: torch.Tensor | None = None,
    seed: int = 0,
    word: int = 0,
    of_noise: float = 0.0,
) -> tuple[torch.Tensor, ...]:
    """(moved, healthy), with ``latents`` also (stepped, finite); tensors that are not contiguous are copied first."""
    big = [None if t is None else t.contiguous() for t in (denoised, gradient, latents, previous)]
    n, count = len(denoised), denoised[:1].numel()
    moved = torch.empty_like(denoised, memory_format=torch.contiguous_format)
    stepped = None if latents is None else torch.empty_like(latents, memory_format=torch.contiguous_format)
    healthy, finite = (torch.ones(n, dtype=torch.bool, device=denoised.device) for _ in range(2))
    if count:
        held = count <= MAX_HELD
        # Four at least: noise comes in fours.
        block = max(4, triton.next_power_of_2(triton.cdiv(count, 2))) if held else CHUNK
        run(
            guided_step_kernel,
            (n,),
            warps(block, 16),
            denoised=big[0],
            gradient=big[1],
            correction_rms=correction_rms.float().contiguous(),
            active=active.contiguous().view(torch.uint8),
            latents=big[2],
            previous=big[3],
            indices=None if indices is None else indices.contiguous(),
            moved=moved,
            healthy=healthy.view(torch.uint8),
            stepped=stepped,
            finite=None if latents is None else finite.view(torch.uint8),
            count=count,
            scale=scale,
            limit=limit,
            of_latents=weights[0],
            of_denoised=weights[1],
            of_previous=weights[2],
            of_noise=of_noise,
            **words(seed, word),
            SOLVE=latents is not None,
            HISTORY=previous is not None,
            NOISE=indices is not None,
            HELD=held,
            BLOCK=block,
            VEC=vector(tuple(t.dtype for t in big if t is not None), count),
        )
    return (moved, healthy) if stepped is None else (moved, healthy, stepped, finite)
