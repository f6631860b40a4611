"""A network from its description."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from prism_fast.errors import DataError
from prism_fast.models.architecture import create_network, fixed_side, refusal
from prism_fast.models.structure.anatomy import Anatomy, examine, keep_children, keep_groups, keep_head
from prism_fast.models.structure.description import Structure
from prism_fast.models.structure.narrow import narrow
from prism_fast.models.structure.residual import leave_out
from prism_fast.models.structure.spliced import LinearHead, Spliced, projection

Shapes = Mapping[str, Sequence[int]]


def build(
    architecture: str, classes: int, image_size: int, structure: Structure, shapes: Shapes | None = None
) -> Spliced:
    """The network that ``structure`` describes, with fresh weights of these shapes if they are given.

    Raises:
        InputError: timm knows no such network, or it cannot be taken apart or cut so.
        DataError: the shapes are not those of a narrower one.
    """
    trunk = create_network(architecture, classes, image_size, **structure.options)
    source = examine(trunk, image_size)
    whole = copy.deepcopy(trunk) if structure.head == "own" else None
    keep_children(trunk, source.body)
    cut = source
    if structure.blocks is not None:
        keep_groups(trunk, source, structure.blocks)
        cut = examine(trunk, image_size)
    leave_out(trunk, structure.left_out)
    net = _joined(trunk, cut, classes, image_size, structure, whole)
    if shapes is not None and structure.width < 1:
        narrow(net, shapes)
        _require_runs(net, image_size)
    return net


def _joined(
    trunk: nn.Module, source: Anatomy, classes: int, image_size: int, structure: Structure, whole: nn.Module | None
) -> Spliced:
    if whole is not None:
        keep_head(whole, source)
        return Spliced(trunk, nn.Identity(), whole, source, source.layout, frozen=False)
    if structure.classifier is None:
        return Spliced(trunk, nn.Identity(), LinearHead(source, classes), source, source.layout, frozen=False)
    head, target = _head(structure.classifier, classes, image_size, structure.classifier_options)
    between = projection(source, target, structure.activation)
    return Spliced(trunk, between, head, source, target.layout, frozen=True)


def _head(architecture: str, classes: int, image_size: int, options: Mapping[str, Any]) -> tuple[nn.Module, Anatomy]:
    """Pooling and classifier of a network, and what features they take; they know nothing of the picture's size."""
    side = options.get("img_size") or fixed_side(architecture) or image_size
    net = create_network(architecture, classes, side, **options)
    anatomy = examine(net, side)
    keep_head(net, anatomy)
    return net, anatomy


def _require_runs(net: nn.Module, image_size: int) -> None:
    why = refusal(copy.deepcopy(net).to("meta").eval(), image_size)
    if why is not None:
        raise DataError(f"the shapes of its weights do not fit each other ({why})")
