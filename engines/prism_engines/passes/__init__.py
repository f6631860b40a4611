"""Rewrites of a traced graph that leave what it computes as it is, in the order in which they run."""

from __future__ import annotations

from torch.fx import GraphModule

from prism_engines.passes.clamps import compare_clamped
from prism_engines.passes.crops import crop_convolutions
from prism_engines.passes.folding import fold_constants, fold_scales
from prism_engines.passes.permutes import cancel_permutes

PASSES = (fold_constants, cancel_permutes, fold_scales, compare_clamped, crop_convolutions)


def simplify(graph: GraphModule) -> None:
    """Run every pass."""
    for step in PASSES:
        step(graph)


__all__ = ["PASSES", "simplify"]
