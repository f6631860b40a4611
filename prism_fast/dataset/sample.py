"""A sample in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Sample:
    """One finished sample.

    ``views`` are the teacher's logits of its first views, as the run's ``ViewCodec`` stores them, where a run has any.
    ``encoded`` is the image as a shard stores it, where somebody had to encode it already.

    Shapes: image uint8 (3, h, w), logits (classes,).
    """

    index: int
    image: torch.Tensor
    label: int
    logits: torch.Tensor
    meta: dict[str, Any]
    views: bytes | None = None
    encoded: bytes | None = None
