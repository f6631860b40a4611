"""What a network says of a batch, and what the batch was made for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prism_fast.models.outputs import Outputs

__all__ = ["Labels", "Outputs"]


@dataclass(frozen=True)
class Labels:
    """The classes that samples were made for; of mixed ones ``share`` belongs to ``own``, the rest to ``other``.

    Shapes: own, other, share (n,).
    """

    own: Tensor
    other: Tensor | None = None
    share: Tensor | None = None
