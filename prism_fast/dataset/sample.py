"""A sample in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Sample:
    """One finished sample.

    Shapes: image uint8 (3, h, w), logits (classes,).
    """

    index: int
    image: torch.Tensor
    label: int
    logits: torch.Tensor
    meta: dict[str, Any]
