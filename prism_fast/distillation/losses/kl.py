"""Distillation by soft targets."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prism_fast.errors import InputError


def kl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened class distributions, mean over the batch.

    ``T^2 * sum_c p_c (log p_c - log q_c)`` with ``p = softmax(teacher / T)``, ``q = softmax(student / T)``. The factor
    T^2 keeps the gradient's size independent of T; the teacher's entropy, a constant, is left in.

    Shapes: both (n, classes); the result is a scalar.
    Dtypes: any floating; computed in float32 (float64 stays float64).

    Raises:
        InputError: shapes differ or are not (n, classes).
    Reference: Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network, equations 1-4.
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise InputError(f"logits must both be (n, classes): student {[*student.shape]}, teacher {[*teacher.shape]}")
    dtype = student.dtype if student.itemsize >= 4 else student.float().dtype
    log_q = F.log_softmax(student.to(dtype) / temperature, dim=1)
    log_p = F.log_softmax(teacher.to(dtype) / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
