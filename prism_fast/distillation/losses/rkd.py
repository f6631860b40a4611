"""Relations between samples: distances of pairs and angles of triplets, as the teacher's features have them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_fast.distillation.losses.inputs import vector_pair
from prism_fast.errors import InputError

#: Part of the mean distance: nearer samples have no direction, else its gradient would have no bound.
_NEAREST = 1e-4
_TINY = 1e-12


def rkd_loss(student: Tensor | None, teacher: Tensor | None, *, distance: float, angle: float) -> Tensor:
    """``distance * mean_ij h(d^S_ij - d^T_ij) + angle * mean_ijk h(a^S_ijk - a^T_ijk)``, h Huber's loss of width 1.

    ``d_ij = |x_i - x_j|`` over its mean, ``a_ijk`` the cosine of the angle at x_j between x_i and x_k; means are over
    distinct samples, where the paper sums. Couples the batch. A part of weight zero is not computed. Both come from the
    products of the centred features, in float64: n^3 numbers, where differences would be n^2 vectors.

    Shapes: (n, c) of any two c, three samples at least; the result is a scalar.
    Dtypes: any floating; the result is float32 (float64 stays float64).

    Raises:
        InputError: features are missing, or shapes do not fit.
    Reference: Park et al. 2019, Relational Knowledge Distillation, equations 4-10; weights 25 and 50 as there.
    """
    student, teacher = vector_pair(student, teacher)
    n = len(student)
    if n < 3:
        raise InputError(f"rkd compares triplets of a batch, which has {n} samples; set distill.batch_size higher")
    dots_s, dots_t = _products(student), _products(teacher)
    far_s, far_t = _distances(dots_s), _distances(dots_t)
    loss = dots_s.new_zeros(())
    if distance:  # pairs of a sample with itself add nothing
        loss = loss + distance * _huber(far_s / _mean(far_s), far_t / _mean(far_t)) / (n * (n - 1))
    if angle:  # and neither do triplets in which one occurs twice
        loss = loss + angle * _huber(_cosines(dots_s, far_s), _cosines(dots_t, far_t)) / (n * (n - 1) * (n - 2))
    return loss.to(student.dtype)


def _products(features: Tensor) -> Tensor:
    """x_i . x_j of the centred features; float64, which no GPU rounds to TF32 and which differences may be taken of."""
    centred = features.double() - features.double().mean(0)
    return centred @ centred.T


def _distances(dots: Tensor) -> Tensor:
    own = dots.diagonal()
    squares = (own[:, None] + own - 2 * dots).clamp_min(_TINY**2)  # whose root has a gradient
    return squares.sqrt() * (1 - torch.eye(len(dots), dtype=dots.dtype, device=dots.device))


def _mean(distances: Tensor) -> Tensor:
    n = len(distances)
    return (distances.sum() / (n * (n - 1))).clamp_min(_TINY)


def _cosines(dots: Tensor, distances: Tensor) -> Tensor:
    """At [j, i, k] that between x_i - x_j and x_k - x_j."""
    between = dots - dots[:, :, None] - dots[:, None, :] + dots.diagonal()[:, None, None]
    reach = torch.maximum(distances, _NEAREST * _mean(distances).detach())
    return between / (reach[:, :, None] * reach[:, None, :])


def _huber(one: Tensor, two: Tensor) -> Tensor:
    return F.huber_loss(one, two, reduction="sum")
