"""Counter-based normal numbers: ten rounds of Philox and Box–Muller in registers, nothing read but the indices."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# (Triton reads a kernel's annotations itself and takes only its own.)
from __future__ import annotations

import torch
import triton
import triton.language as tl

from prism_kernels._triton._run import run, vector, warps

CHUNK = 4096


@triton.jit
def philox(seed_low, seed_high, word, index, block):
    """Four blocks of 32 random bits for the counters (block, word, low and high half of index)."""
    a, b = block.to(tl.uint32), word.to(tl.uint32)
    c, d = index.to(tl.uint32), (index >> 32).to(tl.uint32)
    k, m = seed_low.to(tl.uint32), seed_high.to(tl.uint32)
    for _ in tl.static_range(10):
        left = a.to(tl.uint64) * 0xD2511F53
        right = c.to(tl.uint64) * 0xCD9E8D57
        a = (right >> 32).to(tl.uint32) ^ b ^ k
        c = (left >> 32).to(tl.uint32) ^ d ^ m
        b = right.to(tl.uint32)
        d = left.to(tl.uint32)
        k = k + 0x9E3779B9
        m = m + 0xBB67AE85
    return a, b, c, d


@triton.jit
def box_muller(first, second):
    """Two blocks of 32 bits to two of standard normals; 24 bits of each, so that every uniform is exact in float32.

    Sine and cosine are polynomials of the angle's distance to the nearest quarter turn. The library's reduce any
    angle: 16 loads of a table, an array in local memory and 64 registers a thread, against 40 without them (sm_90).
    """
    uniform = ((first >> 8).to(tl.float32) + 1.0) * 5.9604644775390625e-08  # 2^-24
    radius = tl.sqrt(-2.0 * tl.log(uniform))
    turn = (second >> 8).to(tl.int32)
    quarter = (turn + 2097152) >> 22
    t = (turn - (quarter << 22)).to(tl.float32) * 3.7450702829239286e-07  # 2π · 2^-24
    u = t * t
    sine = t * (1.0 + u * (-0.16666667 + u * (0.0083333333 + u * (-0.00019841270 + u * 2.7557319e-06))))
    cosine = 1.0 + u * (-0.5 + u * (0.041666667 + u * (-0.0013888889 + u * 2.4801587e-05)))
    odd = (quarter & 1) != 0
    x = tl.where(odd, sine, cosine) * tl.where(((quarter + 1) & 2) != 0, -radius, radius)
    y = tl.where(odd, cosine, sine) * tl.where((quarter & 2) != 0, -radius, radius)
    return x, y


@triton.jit
def normals(seed_low, seed_high, word, index, start, BLOCK: tl.constexpr):
    """The BLOCK (a multiple of 4) normals of a sample from element ``start`` (a multiple of 4) on."""
    a, b, c, d = philox(seed_low, seed_high, word, index, start // 4 + tl.arange(0, BLOCK // 4))
    x, y = box_muller(a, b)
    z, w = box_muller(c, d)
    return tl.reshape(tl.join(tl.join(x, z), tl.join(y, w)), [BLOCK])


# Step and seed change between launches: specialising on their values would compile the kernel again and again.
@triton.jit(do_not_specialize=["seed_low", "seed_high", "word"])
def counter_noise_kernel(indices, noise, seed_low, seed_high, word, count, BLOCK: tl.constexpr, VEC: tl.constexpr):
    """One chunk of one sample a program."""
    sample = tl.program_id(0)
    first = tl.program_id(1) * BLOCK
    here = first + tl.arange(0, BLOCK)
    drawn = normals(seed_low, seed_high, word, tl.load(indices + sample), first, BLOCK)
    # A product with a constant tells the compiler that samples start, and end, at multiples of VEC elements.
    start = sample.to(tl.int64) * (count // VEC) * VEC
    tl.store(noise + start + here, drawn.to(noise.dtype.element_ty), mask=here < (count // VEC) * VEC)


def launch(seed: int, indices: torch.Tensor, word: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Noise (n, count); ``word`` is step and stream in one."""
    noise = indices.new_empty(len(indices), count, dtype=dtype)
    if noise.numel():
        block = min(max(4, triton.next_power_of_2(count)), CHUNK)
        run(
            counter_noise_kernel,
            (len(indices), triton.cdiv(count, block)),
            warps(block, 16),
            indices=indices.contiguous(),
            noise=noise,
            **words(seed, word),
            count=count,
            BLOCK=block,
            VEC=vector((dtype,), count),
        )
    return noise


def words(seed: int, word: int) -> dict[str, int]:
    """The kernels' arguments of a seed and a counter word, wrapped into the signed 32 bits that Triton passes."""
    parts = {"seed_low": seed, "seed_high": seed >> 32, "word": word}
    return {name: ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000 for name, value in parts.items()}
