"""Hints: an intermediate feature map of the student is trained to predict one of the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from prism_fast.distillation.losses.inputs import layers, map_pair
from prism_fast.distillation.outputs import Labels, Outputs
from prism_fast.errors import InputError


def fitnet_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``1/2 * mean (r(student) - teacher)^2``, of what the regressor r made of the student's map.

    The paper sums over the elements; the mean does not depend on the map's size. Maps of two sizes are averaged to the
    smaller one.

    Shapes: both (n, c, h, w) of the same c; the result is a scalar.
    Dtypes: any floating; computed in float32 (float64 stays float64).

    Raises:
        InputError: shapes do not fit.
    Reference: Romero et al. 2015, FitNets, equation 3.
    """
    student, teacher = map_pair(student, teacher)
    if student.shape != teacher.shape:
        raise InputError(f"channels differ: student {[*student.shape]}, teacher {[*teacher.shape]}")
    return 0.5 * F.mse_loss(student, teacher)


class FitNetTerm(nn.Module):
    """:func:`fitnet_loss` with its regressor, a 1x1 convolution that learns with the student.

    Args:
        layer: which map, counted from the last, 0.
        student, teacher: what the two networks give for one picture.

    Raises:
        InputError: a network has fewer maps.
    """

    def __init__(self, layer: int, student: Outputs, teacher: Outputs) -> None:
        super().__init__()
        self.layer = layer
        from_, to = (self._map(one, whose) for one, whose in ((student, "student"), (teacher, "teacher")))
        self.regressor = nn.Conv2d(from_.shape[1], to.shape[1], 1)

    def forward(self, student: Outputs, teacher: Outputs, labels: Labels) -> Tensor:
        """The loss; the smaller map is found first, for the regressor costs less there."""
        own, other = map_pair(self._map(student, "student"), self._map(teacher, "teacher"))
        return fitnet_loss(self.regressor(own), other)

    def _map(self, outputs: Outputs, whose: str) -> Tensor:
        return layers(outputs.maps, self.layer + 1, whose, "fitnet's layer")[0]
