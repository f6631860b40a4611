"""How many different pictures a set holds: the Vendi score, and the mean distance between two of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_fast.errors import InputError

Features = Tensor | NDArray[Any]


def vendi_score(features: Features) -> float:
    """The effective number of different rows: 1 if they all point the same way, n if they are orthogonal.

    With the cosine kernel ``K_ij = <x_i, x_j> / (|x_i| |x_j|)`` of n rows::

        score = exp( - sum over eigenvalues l of K/n of [ l log l ] )

    It is bounded by the number of rows: compare only sets of equal size. The eigenvalues are those of the n x n or of
    the d x d matrix, whichever is smaller; both have the same ones but for zeros. A row of zeros has no direction: such
    rows count as equal to each other and orthogonal to all others.

    Shapes:
        (n, d), n at least 1.
    Dtypes:
        any floating point; computed in float64.

    Raises:
        InputError: another shape or dtype, no rows, NaN or infinity.
    Reference:
        Friedman & Dieng 2023, The Vendi Score (arXiv 2210.02410), definition 3.1.
    """
    rows = _directions(features)
    n, d = rows.shape
    product = rows @ rows.T if n <= d else rows.T @ rows
    eigenvalues = torch.linalg.eigvalsh(product / n).clamp_min(0)
    score = math.exp(float(torch.special.entr(eigenvalues).sum()))
    return min(max(score, 1.0), float(n))  # by rounding it may be 1 - 1e-15


def mean_pairwise_distance(features: Features) -> float:
    """The mean over all pairs of rows of one minus their cosine; 0 if all point the same way.

    Half the squared distance of two directions is one minus their cosine, so the mean over pairs is the variance of the
    directions, ``sum |u_i - mean u|^2 / (n - 1)``: n·d operations, and no digits lost for rows that are near. It does
    not depend on the number of rows but for noise. Rows of zeros are taken as in :func:`vendi_score`.

    Shapes:
        (n, d), n at least 2.

    Raises:
        InputError: another shape or dtype, fewer than two rows, NaN or infinity.
    """
    rows = _directions(features)
    if len(rows) < 2:
        raise InputError("the distance between pictures needs at least 2 of them, got 1")
    return float((rows - rows.mean(dim=0)).square().sum()) / (len(rows) - 1)


def _directions(features: Features) -> Tensor:
    """Rows of length one in float64; rows of zeros become a dimension of their own."""
    found = torch.as_tensor(features)
    if found.ndim != 2 or not found.is_floating_point() or 0 in found.shape:
        raise InputError(f"features must be floats of shape (n, d), got {found.dtype} {tuple(found.shape)}")
    if not bool(found.isfinite().all()):
        raise InputError("features hold NaN or infinity; look at the network that made them")
    rows = found.detach().double()
    largest = rows.abs().amax(dim=1, keepdim=True)
    zero = largest == 0
    rows = torch.cat([rows / largest.masked_fill(zero, 1), zero.double()], dim=1)  # squares would overflow before
    directions: Tensor = rows / rows.norm(dim=1, keepdim=True)
    return directions
