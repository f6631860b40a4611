"""Distillation losses, one a file, and their weighted sum."""

from __future__ import annotations

from torch import Tensor

from prism_fast.config import DistillConfig
from prism_fast.distillation.losses.hard_label import hard_label_loss
from prism_fast.distillation.losses.kl import kl_loss

__all__ = ["distillation_loss", "hard_label_loss", "kl_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, config: DistillConfig) -> Tensor:
    """``(1 - label_weight) * KL + label_weight * cross-entropy``; a term of weight zero is not computed.

    Shapes: student and teacher (n, classes), labels (n,); the result is a scalar.

    Raises:
        InputError: shapes do not fit.
    Reference: Hinton et al. 2015, section 2.
    """
    weight = config.label_weight
    if weight == 0:
        return kl_loss(student, teacher, config.temperature)
    if weight == 1:
        return hard_label_loss(student, labels)
    soft = kl_loss(student, teacher, config.temperature)
    return (1 - weight) * soft + weight * hard_label_loss(student, labels)
