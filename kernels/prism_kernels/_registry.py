"""What every operator declares: dtypes, tolerances, the oldest GPU, and the bytes that it must move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
# Every operator computes in float32 and rounds its result once, so half precision costs one rounding: 2^-11 or 2^-8.
# The float32 entry is four units in the last place for each of up to a few dozen terms.
_TOLERANCE = {torch.float32: 2e-6, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


@dataclass(frozen=True)
class OpSpec:
    """An operator's declaration.

    ``tolerance`` is relative, by the dtype of the result; :meth:`tolerance_for` scales it. ``bytes_min`` counts every
    input once and every result once, from the tensors themselves. ``differentiable``: the kernel has a backward.
    """

    name: str
    formula: str
    dtypes: tuple[torch.dtype, ...] = FLOATS
    min_capability: tuple[int, int] = (8, 0)
    tolerance: Callable[[torch.dtype], float] = _TOLERANCE.__getitem__
    differentiable: bool = False

    def tolerance_for(self, dtype: torch.dtype, reduction: int = 1) -> float:
        """Relative tolerance of a result of ``dtype`` that sums ``reduction`` terms.

        Float32 rounding of a sum grows like the square root of its length (pairwise or in lanes: slower than that);
        rounding the result to half precision does not grow at all.
        """
        accumulated = self.tolerance(torch.float32) * math.sqrt(max(1, reduction))
        return max(accumulated, self.tolerance(dtype))

    @staticmethod
    def bytes_min(*tensors: torch.Tensor | None) -> int:
        """Bytes of inputs and results when each is moved once."""
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


OPS: dict[str, OpSpec] = {
    spec.name: spec
    for spec in (
        OpSpec("counter_noise", "ε = BoxMuller(Philox4x32(key = seed; block, step, index))"),
        OpSpec("energy", "E = a·f_y + b·logsumexp(f/T) and dE/df"),
        OpSpec("guided_combine", "x₀ = A·z + B·(p_u + w·(p_c - p_u)) and the correction's sum of squares"),
        OpSpec("group_norm_silu", "y = u·σ(u), u = w·(x - mean)/std + b in each group", differentiable=True),
        OpSpec("guided_step", "x₀' = x₀ - ρ·g, z' = a·z + b·x₀' + c·previous + d·ε, is z' finite"),
        OpSpec("view", "y = s·(R·x·Cᵀ) + t with R, C of a random crop, flip and resize", differentiable=True),
    )
}
