"""What a network says of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Logits and, where a loss compares them, features.

    Shapes: logits (n, classes); maps (n, c, h, w) each, from the input on; pooled (n, c), before the classifier.
    """

    logits: Tensor
    maps: tuple[Tensor, ...] = ()
    pooled: Tensor | None = None


def concatenated(parts: Sequence[Outputs]) -> Outputs:
    """What was said of the parts of a batch, of the whole; at least one."""
    if len(parts) == 1:
        return parts[0]
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Outputs(
        torch.cat([part.logits for part in parts]),
        tuple(torch.cat(maps) for maps in zip(*(part.maps for part in parts), strict=True)),
        torch.cat(pooled) if pooled else None,
    )
