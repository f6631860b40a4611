"""Cross-entropy with the class the sample was made for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prism_fast.errors import InputError


def hard_label_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Mean of ``-log softmax(student)[label]``.

    Shapes: student (n, classes), labels (n,); the result is a scalar.
    Dtypes: student any floating, computed in float32 (float64 stays float64); labels int64.

    Raises:
        InputError: shapes do not fit.
    """
    if student.ndim != 2 or labels.shape != student.shape[:1]:
        raise InputError(f"expected logits (n, classes) and labels (n,): {[*student.shape]}, {[*labels.shape]}")
    return F.cross_entropy(student if student.itemsize >= 4 else student.float(), labels)
