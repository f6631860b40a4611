"""What a loader gives and a trainer takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prism_fast.errors import DataError

Positions = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Batch:
    """One training batch, or a rank's part of it.

    ``positions`` are the samples' places in the stream of all ranks, on the host; whatever is drawn for a sample is
    drawn from them. Of mixed pictures ``share`` is how much of each is its own; the rest is of ``other_labels``.

    Shapes: images (n, 3, s, s), labels (n,), logits (n, classes), positions (n,), other_labels (n,), share (n,).
    Dtypes: images floating, in channels-last memory, normalised by mean and std; labels int64; logits and share
        float32; positions int64.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    positions: Positions
    other_labels: Tensor | None = None
    share: Tensor | None = None


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
