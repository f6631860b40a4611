"""What every loss does with what it is given: refuse shapes that don't fit, compute in float32 at least."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_fast.distillation.outputs import Labels
from prism_fast.errors import InputError


def logit_pair(student: Tensor, teacher: Tensor, least_classes: int = 1) -> tuple[Tensor, Tensor]:
    """Both in float32 at least (float64 stays float64), the student's type deciding.

    Raises:
        InputError: shapes differ, are not (n, classes), or there are fewer classes than the loss needs.
    """
    if student.shape != teacher.shape or student.ndim != 2 or 0 in student.shape:
        raise InputError(f"logits must both be (n, classes): student {[*student.shape]}, teacher {[*teacher.shape]}")
    if student.shape[1] < least_classes:
        raise InputError(f"this loss needs {least_classes} classes at least, the logits are {[*student.shape]}")
    return same_type(student, teacher)


def same_type(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, or in float64 if the student's are."""
    dtype = torch.promote_types(student.dtype, torch.float32)
    return student.to(dtype), teacher.to(dtype)


def over_labels(labels: Labels, rows: int, each: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over the samples of what ``each`` gives for their labels (n,); mixed ones: by share, of both labels.

    ``mean(share * each(own) + (1 - share) * each(other))``

    Raises:
        InputError: labels don't fit ``rows``, or only one of other and share is given.
    """
    own, other, share = labels.own, labels.other, labels.share
    given = [one for one in (own, other, share) if one is not None]
    if len(given) == 2 or any(one.shape != (rows,) for one in given):
        shapes = ", ".join("none" if one is None else str([*one.shape]) for one in (own, other, share))
        raise InputError(f"expected own, other and share of [{rows}] each, or own alone: {shapes}")
    if other is None or share is None:
        return each(own).mean()
    loss = each(own)
    part = share.to(loss.dtype)
    return (part * loss + (1 - part) * each(other)).mean()


def is_label(labels: Tensor, classes: int) -> Tensor:
    """(n, classes), true at each sample's label; nothing is read from the device."""
    return labels[:, None] == torch.arange(classes, device=labels.device)


def map_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Feature maps (n, c, h, w), averaged to the smaller height and width, in float32 at least.

    Raises:
        InputError: they are no maps, or of other samples.
    """
    if student.ndim != 4 or teacher.ndim != 4 or len(student) != len(teacher):
        raise InputError(
            f"feature maps must both be (n, c, h, w): student {[*student.shape]}, teacher {[*teacher.shape]}"
        )
    height, width = (min(student.shape[side], teacher.shape[side]) for side in (2, 3))
    one, two = same_type(student, teacher)
    return _averaged(one, height, width), _averaged(two, height, width)


def _averaged(maps: Tensor, height: int, width: int) -> Tensor:
    return maps if maps.shape[2:] == (height, width) else F.adaptive_avg_pool2d(maps, (height, width))


def vector_pair(student: Tensor | None, teacher: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features before the classifier, (n, c) of any two c, in float32 at least.

    Raises:
        InputError: a network gave none, or they are of other samples.
    """
    if student is None or teacher is None:
        raise InputError("this loss compares features before the classifier; wrap both networks in Featured(net, True)")
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise InputError(f"features must both be (n, c): student {[*student.shape]}, teacher {[*teacher.shape]}")
    return same_type(student, teacher)


def layers(maps: tuple[Tensor, ...], count: int, whose: str, key: str) -> tuple[Tensor, ...]:
    """The last ``count`` feature maps.

    Raises:
        InputError: there are fewer; the message names the key that asked for them.
    """
    if len(maps) < count:
        raise InputError(f"{key} wants the last {count} feature maps, the {whose} has {len(maps)}; set it lower")
    return maps[len(maps) - count :]
