"""Export-safe forms of aten operators, one file a family; ``LOWERINGS`` is all of them.

A lowering takes the operator's own arguments and returns its results, made of primitives that every exporter takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prism_engines.lowerings import activations, convolution, indexing, norms, pooling, resize

Lowering = Callable[..., Any]
LOWERINGS: dict[Any, Lowering] = {
    **activations.LOWERINGS,
    **convolution.LOWERINGS,
    **indexing.LOWERINGS,
    **norms.LOWERINGS,
    **pooling.LOWERINGS,
    **resize.LOWERINGS,
}

__all__ = ["LOWERINGS", "Lowering"]
