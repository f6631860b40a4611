"""A student that ends in the teacher's own classifier: what it gives to it is what the teacher gives."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_fast.distillation.losses.inputs import map_pair, vector_pair
from prism_fast.distillation.outputs import Labels, Outputs
from prism_fast.errors import InputError


def simkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean (student - teacher)^2`` of the projected features; maps of two sizes are averaged to the smaller one.

    Shapes: both (n, c, h, w) or both (n, c), of the same c; the result is a scalar.
    Dtypes: any floating; computed in float32 (float64 stays float64).

    Raises:
        InputError: shapes do not fit.
    Reference: Chen et al. 2022, Knowledge Distillation with the Reused Teacher Classifier, equation 4.
    """
    pair = map_pair if student.ndim == teacher.ndim == 4 else vector_pair
    student, teacher = pair(student, teacher)
    if student.shape != teacher.shape:
        raise InputError(_refusal(student.shape[1], teacher.shape[1]))
    return F.mse_loss(student, teacher)


class SimKDTerm(nn.Module):
    """:func:`simkd_loss` of the last maps, where both are what is averaged before the classifier; else of the vectors.

    With ``features: vector``, which is ours, always of the vectors.

    A classifier may see something else than its network's last map (a ViT's class token, MobileNet's last convolution
    after pooling), whose channels agree by chance: the map is compared only if its mean is the vector.

    Args:
        student, teacher: what the two networks give for one picture.

    Raises:
        InputError: the student's features have another count of channels than the teacher's.
    """

    def __init__(self, student: Outputs, teacher: Outputs, features: Literal["map", "vector"] = "map") -> None:
        super().__init__()
        s, t = vector_pair(student.pooled, teacher.pooled)
        if s.shape[1] != t.shape[1]:
            raise InputError(_refusal(s.shape[1], t.shape[1]))
        self.maps = features == "map" and _averages_last_map(student) and _averages_last_map(teacher)

    def forward(self, student: Outputs, teacher: Outputs, labels: Labels) -> Tensor:
        """The loss."""
        if self.maps:
            return simkd_loss(student.maps[-1], teacher.maps[-1])
        return simkd_loss(*vector_pair(student.pooled, teacher.pooled))


def _averages_last_map(outputs: Outputs) -> bool:
    if not outputs.maps or outputs.pooled is None or outputs.maps[-1].shape[1] != outputs.pooled.shape[1]:
        return False
    return torch.allclose(outputs.maps[-1].mean((2, 3)), outputs.pooled, rtol=1e-3, atol=1e-5)


def _refusal(student: int, teacher: int) -> str:
    return (
        f"simkd compares features before the classifier: the student has {student}, the teacher {teacher}; the student "
        "must end in the teacher's own classifier: set student_from or inherit (see DistillConfig)"
    )
