"""What a network says of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Logits and, where a loss compares them, features.

    Shapes: logits (n, classes); maps (n, c, h, w) each, from the input on; pooled (n, c), before the classifier.
    """

    logits: Tensor
    maps: tuple[Tensor, ...] = ()
    pooled: Tensor | None = None
