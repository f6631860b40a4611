"""Correlation with the teacher's predictions instead of equality: its order, whatever its scale."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prism_fast.distillation.losses.inputs import logit_pair


def dist_loss(student: Tensor, teacher: Tensor, *, temperature: float, beta: float, gamma: float) -> Tensor:
    """``T^2 * (beta * (1 - mean_i r(S_i, T_i)) + gamma * (1 - mean_c r(S_:c, T_:c)))``.

    ``S`` and ``T`` are the softened predictions (n, classes), ``r`` is Pearson's correlation: of each sample over the
    classes, and of each class over the samples. T^2 is that of the authors' code. Couples the batch: the second part
    compares the samples of a batch, so that it depends on how a batch is cut; of a single sample it is constant. Where
    a row or a column does not vary, r is 0.

    Shapes: both (n, classes); the result is a scalar.
    Dtypes: any floating; computed in float32 (float64 stays float64).

    Raises:
        InputError: shapes differ or are not (n, classes).
    Reference: Huang et al. 2022, Knowledge Distillation from a Stronger Teacher, equations 6-10.
    """
    student, teacher = logit_pair(student, teacher)
    s, t = F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)
    inter, intra = 1 - _correlation(s, t, 1).mean(), 1 - _correlation(s, t, 0).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def _correlation(s: Tensor, t: Tensor, dim: int) -> Tensor:
    return F.cosine_similarity(s - s.mean(dim, keepdim=True), t - t.mean(dim, keepdim=True), dim=dim)
