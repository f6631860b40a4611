"""Standard normal noise that is a function of (seed, sample index, step, stream, element) and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from prism_kernels import _reference
from prism_kernels._backend import takes_triton
from prism_kernels._errors import KernelInputError

_STEPS, _STREAMS = 2**24, 2**8


@torch.library.custom_op("prism_kernels::counter_noise", mutates_args=())
def _fused(seed: int, indices: torch.Tensor, word: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    from prism_kernels._triton.counter_noise import launch

    return launch(seed, indices, word, count, dtype)


@_fused.register_fake
def _(seed: int, indices: torch.Tensor, word: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    return indices.new_empty(indices.shape[0], count, dtype=dtype)


def counter_noise(
    seed: int,
    indices: torch.Tensor,
    step: int,
    shape: Sequence[int],
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Standard normal noise of each sample at one step.

    ``bits = Philox4×32-10(key = (seed_lo, seed_hi), counter = (e div 4, stream · 2^24 + step, index_lo, index_hi))``
    for the four elements ``e`` of a block, in the order of their indices in ``shape``. Pairs ``(p, q)`` of the bits
    become ``√(-2 ln u) · (cos 2πv, sin 2πv)`` with ``u = (p div 2^8 + 1) / 2^24`` and ``v = (q div 2^8) / 2^24``, in
    float32. So a sample's noise depends neither on its batch nor on its device, up to float32 rounding; the largest
    number that can be drawn is 5.77.

    Shapes: indices (n,), shape that of one sample; returns (n, *shape).
    Dtypes: indices int64; result float32, float16 or bfloat16, rounded from float32.
    Raises: KernelInputError when indices, seed, step, stream, shape or dtype do not fit.
    Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box and Muller 1958.
    """
    check_counter("counter_noise", seed, indices, step, stream)
    if any(size < 0 for size in shape) or dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise KernelInputError(
            f"counter_noise: got shape {tuple(shape)} and {dtype}, expected sizes from 0 on and float32, float16 or "
            "bfloat16; convert the result for other dtypes"
        )
    count, word = math.prod(shape), counter_word(step, stream)
    if takes_triton("counter_noise", indices):
        drawn: torch.Tensor = _fused(signed(seed), indices, word, count, dtype)
        return drawn.reshape(len(indices), *shape)
    return _reference.counter_noise(seed, indices, word, count).to(dtype).reshape(len(indices), *shape)


def counter_word(step: int, stream: int) -> int:
    """The counter's second number: 8 bits of stream, 24 of step."""
    return stream * _STEPS + step


def signed(seed: int) -> int:
    """A seed's 64 bits as the signed integer that torch passes to operators."""
    return (seed & 2**64 - 1 ^ 2**63) - 2**63


def check_counter(op: str, seed: int, indices: torch.Tensor, step: int, stream: int) -> None:
    """Refuse what the counter cannot hold.

    Raises:
        KernelInputError: indices are not (n,) int64, or a number is out of its range.
    """
    if indices.dim() != 1 or indices.dtype != torch.int64:
        raise KernelInputError(
            f"{op}: got noise indices {tuple(indices.shape)} {indices.dtype}, expected (n,) int64; "
            "pass each sample's index in the run"
        )
    for name, value, end in (("seed", seed, 2**64), ("step", step, _STEPS), ("stream", stream, _STREAMS)):
        if not 0 <= value < end:
            raise KernelInputError(f"{op}: got {name} {value}, expected 0 to {end - 1}; choose a smaller one")
