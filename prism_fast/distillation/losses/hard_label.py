"""Cross-entropy with the class the sample was made for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prism_fast.distillation.losses.inputs import over_labels, same_type
from prism_fast.distillation.outputs import Labels
from prism_fast.errors import InputError


def hard_label_loss(student: Tensor, labels: Labels, smoothing: float = 0.0) -> Tensor:
    """Mean of ``-sum_c t_c log softmax(student)_c``, ``t = (1 - smoothing) * onehot(label) + smoothing / classes``.

    Of mixed samples ``share * CE(own) + (1 - share) * CE(other)``.

    Shapes: student (n, classes), labels (n,); the result is a scalar.
    Dtypes: student any floating, computed in float32 (float64 stays float64); labels int64.

    Raises:
        InputError: shapes do not fit.
    Reference: Szegedy et al. 2016, Rethinking the Inception Architecture, section 7; Zhang et al. 2018, mixup.
    """
    if student.ndim != 2:
        raise InputError(f"expected logits (n, classes), got {[*student.shape]}")
    logits, _ = same_type(student, student)
    return over_labels(
        labels, len(logits), lambda own: F.cross_entropy(logits, own, reduction="none", label_smoothing=smoothing)
    )
