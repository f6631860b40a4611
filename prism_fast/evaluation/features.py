"""Pooled features of a timm network: the space in which precision and recall are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from prism_fast.errors import InputError
from prism_fast.evaluation._batched import run_batched


def pooled_features(
    model: nn.Module,
    images: Tensor,
    *,
    prepare: Callable[[Tensor], Tensor],
    batch_size: int = 128,
    device: str | torch.device = "cpu",
) -> Tensor:
    """What the classifier layer of a timm model would see; use a network that did not guide the sampling.

    Shapes:
        images (n, 3, h, w) uint8 -> (n, d) float32 on the CPU.

    Raises:
        InputError: the model has no ``forward_features``/``forward_head``; wrong images.
        RunError: NaN or infinite features.
    """
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise InputError(f"{type(model).__name__} has no forward_features and forward_head; give a timm model")
    network = cast(Any, model)

    def forward(batch: Tensor) -> Tensor:
        pooled: Tensor = network.forward_head(network.forward_features(batch), pre_logits=True)
        return pooled.flatten(1)

    return run_batched(model, forward, images, prepare=prepare, batch_size=batch_size, device=device)
