"""Soft targets at several temperatures at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prism_fast.distillation.losses.kl import kl_loss


def multi_temperature_loss(student: Tensor, teacher: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Mean over the temperatures of ``T^2 * KL(softmax(teacher / T), softmax(student / T))``.

    The paper's instance level sums them; a mean has the same size for any number of temperatures.

    Shapes: both (n, classes); the result is a scalar.
    Dtypes: any floating; computed in float32 (float64 stays float64).

    Raises:
        InputError: shapes differ or are not (n, classes).
    Reference: Jin, Wang, Lin 2023, Multi-Level Logit Distillation, section 3 (prediction augmentation).
    """
    return torch.stack([kl_loss(student, teacher, temperature) for temperature in temperatures]).mean()
