"""What a loader gives and a trainer takes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Shapes: images (n, 3, s, s), labels (n,), logits (n, classes).
    Dtypes: images float32, normalised by the teacher's mean and std; labels int64; logits float32.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
