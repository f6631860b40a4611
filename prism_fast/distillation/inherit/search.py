"""Which cut of a teacher to distil: those that cost a budget, the most promising first."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prism_fast.config import DistillConfig
from prism_fast.config.distill import InheritConfig
from prism_fast.config.losses import SimKD
from prism_fast.distillation.inherit.make import inherited
from prism_fast.distillation.inherit.pictures import Pictures, first
from prism_fast.distillation.inherit.shallow import removable, removal_order
from prism_fast.errors import InputError
from prism_fast.evaluation.cost import multiply_adds
from prism_fast.models.architecture import refusal
from prism_fast.models.classifier import Classifier
from prism_fast.models.resize import resized
from prism_fast.models.structure.anatomy import examine
from prism_fast.models.structure.spliced import Spliced, as_map

WIDTHS = (1.0, 0.85, 0.7, 0.5, 0.35)
#: Parts of the teacher's side.
SIDES = (1.0, 0.75, 0.625, 0.5)
#: Parts of the residual blocks that stay; narrower networks keep all of them.
DEPTHS = (0.8, 0.6, 0.4, 0.2, 0.0)
#: What costs less than this part of the budget wastes it.
_NEAR = 0.6
#: Pictures that the readout is fitted on and judged by, half each.
_PICTURES = 512


@dataclass(frozen=True)
class Candidate:
    """A cut and what it costs: ``share`` of the teacher's multiply-adds at its own size.

    ``score``: the part of the variance of the teacher's logits, on pictures held out, that a linear readout of the
    cut's pooled features explains before any training; None where there were no pictures.
    """

    inherit: InheritConfig
    image_size: int
    share: float
    score: float | None = None


def search(
    teacher: Classifier,
    budget: float,
    images: Pictures | None = None,
    widths: Sequence[float] = WIDTHS,
    most: int = 8,
) -> tuple[Candidate, ...]:
    """At most ``most`` cuts of the teacher that cost at most ``budget`` of its multiply-adds and use most of that.

    In order of ``score`` with ``images``, batches normalised for the teacher. Without, the gentlest cut first: the one
    whose strongest reduction (groups, channels, side) is the least; residual blocks are left out with images alone.

    Raises:
        InputError: the teacher cannot be taken apart, or no cut costs that little.
    """
    if not 0 < budget < 1:
        raise InputError(f"expected a budget between 0 and 1 of the teacher's multiply-adds, got {budget}")
    order = _order(teacher, images)
    groups = len(examine(teacher.net, teacher.config.image_size).groups) or 1
    found = [one for one in _all(teacher, groups, widths, order, budget) if one.share <= budget]
    if not found:
        raise InputError(f"no cut of {teacher.config.architecture} costs {budget} of it or less; raise the budget")
    near = [one for one in found if one.share >= _NEAR * budget] or [max(found, key=lambda one: one.share)]
    near.sort(key=lambda one: _gentleness(one, groups, teacher.config.image_size), reverse=True)
    if images is None:
        return tuple(near[:most])
    shown = first(images, _PICTURES)
    scored = [_scored(one, teacher, order, shown) for one in near[:most]]
    return tuple(sorted(scored, key=lambda one: -(one.score or 0.0)))


def _order(teacher: Classifier, images: Pictures | None) -> tuple[str, ...]:
    """In which the teacher's residual blocks go; nothing without images, or where it has none."""
    if images is None:
        return ()
    blocks = removable(teacher)
    return removal_order(teacher, images, blocks, len(blocks))


def _gone(order: tuple[str, ...], depth: float) -> tuple[str, ...]:
    return order[: len(order) - round(depth * len(order))]


def _all(
    teacher: Classifier, groups: int, widths: Sequence[float], order: tuple[str, ...], budget: float
) -> Iterator[Candidate]:
    """Every cut that may cost the budget; narrowing is the same whichever criterion chooses the channels."""
    side = teacher.config.image_size
    whole = multiply_adds(_outline(teacher.net), side)
    sides = sorted({max(16, round(side * part / 16) * 16) for part in SIDES}, reverse=True)
    for depth in DEPTHS if order else ():
        inherit = InheritConfig(depth=depth)
        shares = _shares(teacher, inherit, sides, whole, _gone(order, depth))
        yield from (Candidate(inherit, size, share) for size, share in shares.items())
    for blocks in (None, *range(groups - 1, 0, -1)):
        full = _shares(teacher, InheritConfig(blocks=blocks), sides, whole)
        for width in widths:
            # A layer's cost falls with the square of the width, that of the projection and of the first layer with it.
            worth = [size for size, share in full.items() if share * width**2 <= budget and share * width >= budget / 4]
            inherit = InheritConfig(blocks=blocks, width=width)
            shares = full if width == 1 else _shares(teacher, inherit, worth, whole)
            yield from (Candidate(inherit, size, share) for size, share in shares.items())


def _shares(
    teacher: Classifier, inherit: InheritConfig, sides: Sequence[int], whole: int, gone: tuple[str, ...] = ()
) -> dict[int, float]:
    """What a cut costs at each size that it takes; nothing where the family cannot be cut or narrowed so."""
    if not sides:
        return {}
    try:
        net = _cut(teacher, inherit, teacher.config.image_size, gone).net
    except InputError:
        return {}
    outline = _outline(net)
    return {size: multiply_adds(outline, size) / whole for size in sides if refusal(outline, size) is None}


def _cut(teacher: Classifier, inherit: InheritConfig, size: int, gone: tuple[str, ...]) -> Classifier:
    """By magnitude, which needs no pictures."""
    inherit = inherit.model_copy(update={"criterion": "magnitude"})
    recipe = DistillConfig(student_from="teacher", inherit=inherit, image_size=size, teacher="live", losses=(SimKD(),))
    return inherited(recipe, teacher.config.num_classes, teacher, gone=gone)


def _outline(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).to("meta").eval().requires_grad_(False)


def _gentleness(one: Candidate, groups: int, side: int) -> float:
    kept = (one.inherit.blocks or groups) / groups
    rest = (1 + one.inherit.depth) / 2  # a network without any residual block still has the others
    return min(kept, rest, one.inherit.width, one.image_size / side)


@torch.no_grad()
def _scored(one: Candidate, teacher: Classifier, order: tuple[str, ...], shown: list[Tensor]) -> Candidate:
    net = _cut(teacher, one.inherit, one.image_size, _gone(order, one.inherit.depth)).net.eval()
    trunk: Any = net.trunk if isinstance(net, Spliced) else net
    known, device = examine(trunk, one.image_size), next(teacher.net.parameters()).device
    inputs, targets = [], []
    for batch in shown:
        features = trunk.forward_features(_sized(batch.cpu(), one.image_size))
        inputs.append(as_map(features, known.layout, known.prefix).mean((2, 3)))
        targets.append(teacher.net(_sized(batch.to(device), teacher.config.image_size)).cpu())
    return Candidate(one.inherit, one.image_size, one.share, explained(torch.cat(inputs), torch.cat(targets)))


def _sized(batch: Tensor, size: int) -> Tensor:
    return resized(batch.float(), size, size)


def explained(inputs: Tensor, targets: Tensor) -> float:
    """R squared of ridge regression, fitted on the even rows and judged by the odd ones.

    Shapes: inputs (n, c), targets (n, k).
    """
    x, y = inputs.double(), targets.double()
    centre, scale = x[::2].mean(0), x[::2].std(0).clamp_min(1e-6)
    x = (x - centre) / scale
    mean = y[::2].mean(0)
    kernel = x[::2] @ x[::2].T
    ridge = 0.1 * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)
    guess = x[1::2] @ x[::2].T @ torch.linalg.solve(kernel + ridge, y[::2] - mean)
    rest = y[1::2] - mean
    return 1 - float((rest - guess).square().sum() / rest.square().sum().clamp_min(1e-12))
