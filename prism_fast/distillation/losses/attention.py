"""Where a network looks: the energy of its activations at each place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_fast.distillation.losses.inputs import map_pair
from prism_fast.errors import InputError


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """``sum_j mean (Q^S_j / |Q^S_j| - Q^T_j / |Q^T_j|)^2``, ``Q = sum over channels of A^2``, flattened by sample.

    Equation 2 has the distance itself; its authors' code has the mean of the squares over samples and places, which is
    followed here (with a weight of 1000 there, beta over two). Maps of two sizes are averaged to the smaller one.

    Shapes: pairs (n, c, h, w) of any two c; the result is a scalar.
    Dtypes: any floating; computed in float32 (float64 stays float64).

    Raises:
        InputError: other counts of maps, or shapes that do not fit.
    Reference: Zagoruyko and Komodakis 2017, Paying More Attention to Attention, equation 2 with p = 2.
    """
    if len(student) != len(teacher) or not student:
        raise InputError(f"expected as many feature maps of both, got {len(student)} and {len(teacher)}")
    pairs = (map_pair(s, t) for s, t in zip(student, teacher, strict=True))
    return torch.stack([F.mse_loss(_attention(s), _attention(t)) for s, t in pairs]).sum()


def _attention(maps: Tensor) -> Tensor:
    """The channels' mean for their sum, which the norm takes out again."""
    return F.normalize(maps.square().mean(1).flatten(1), dim=1)
