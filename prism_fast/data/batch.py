"""What a loader gives and a trainer takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from prism_fast.errors import DataError


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Shapes: images (n, 3, s, s), labels (n,), logits (n, classes).
    Dtypes: images float32, normalised by the teacher's mean and std; labels int64; logits float32.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor


def require_labels(labels: Tensor, classes: int, where: Path) -> None:
    """Refuse labels, on the CPU, that are none of the classes.

    Raises:
        DataError: one is outside 0..classes-1.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise DataError(
            f"{where} holds the label {int(wrong[0])}, expected 0 to {classes - 1}; "
            f"'prism-fast verify' says which shard to make again"
        )
