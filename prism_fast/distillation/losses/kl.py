"""Distillation by soft targets."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prism_fast.distillation.losses.inputs import logit_pair

#: Added to a row's variance, so that a row of equal logits has a gradient.
_LEAST_VARIANCE = 1e-8


def kl_loss(student: Tensor, teacher: Tensor, temperature: float, standardise: bool = False) -> Tensor:
    """Kullback-Leibler divergence of softened class distributions, mean over the batch.

    ``T^2 * sum_c p_c (log p_c - log q_c)`` with ``p = softmax(teacher / T)``, ``q = softmax(student / T)``. The factor
    T^2 keeps the gradient's size independent of T; the teacher's entropy, a constant, is left in. ``standardise``: each
    row's logits are first ``(z - mean(z)) / std(z)``, std by all classes; T is then the paper's base temperature (2
    there, with a weight of 9).

    Shapes: both (n, classes); the result is a scalar.
    Dtypes: any floating; computed in float32 (float64 stays float64).

    Raises:
        InputError: shapes differ or are not (n, classes).
    Reference: Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network, equations 1-4; Sun et al. 2024,
        Logit Standardization in Knowledge Distillation, algorithm 1.
    """
    student, teacher = logit_pair(student, teacher)
    if standardise:
        student, teacher = (F.layer_norm(z, z.shape[1:], eps=_LEAST_VARIANCE) for z in (student, teacher))
    log_q = F.log_softmax(student / temperature, dim=1)
    log_p = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
