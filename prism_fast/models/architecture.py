"""timm networks by name, for pictures of a size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from prism_fast.errors import InputError


def create_network(architecture: str, num_classes: int, image_size: int, **options: Any) -> nn.Module:
    """A timm network with fresh weights; one that would refuse images of ``image_size`` (ViT) is made for them.

    Raises:
        InputError: timm knows no such architecture, or it cannot be made so.
    """
    fixed_side(architecture)  # whether there is one
    try:
        sized = {"img_size": image_size} if _needs_size(architecture, image_size, options) else {}
        return _create(architecture, num_classes, **sized, **options)
    except (AssertionError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{architecture} cannot be made for {num_classes} classes and images of {image_size} pixels: {first}"
        ) from error


def _needs_size(architecture: str, image_size: int, options: Mapping[str, Any]) -> bool:
    """Whether the network must be told its size: many that are made for one take all."""
    if fixed_side(architecture) in (None, image_size) or "img_size" in options:
        return False
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return refusal(_create(architecture, 1, **options).eval(), image_size) is not None


def _create(architecture: str, num_classes: int, **options: Any) -> nn.Module:
    net: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=num_classes, **options)
    return net


def fixed_side(architecture: str) -> int | None:
    """The image size that timm's network is made for unless told, if it takes no other."""
    if not timm.is_model(architecture):
        raise InputError(f"timm knows no architecture {architecture!r}")
    try:
        known: Any = timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:  # an unknown tag
        raise InputError(f"architecture {architecture!r}: {str(error).splitlines()[0]}") from error
    return int(known.input_size[1]) if known is not None and known.fixed_input_size else None


@torch.no_grad()
def refusal(net: nn.Module, size: int) -> str | None:
    """Why a network does not take images of this size, None if it does."""
    try:
        net(torch.zeros(1, 3, size, size, device=next(net.parameters()).device))
    except Exception as error:  # each architecture raises what its first layer that minds raises
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None
