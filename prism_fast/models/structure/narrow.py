"""Networks with fewer channels, from the shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prism_fast.errors import DataError


def narrow(net: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give a network's weights these shapes; what they hold is then undefined.

    Raises:
        DataError: a shape is larger than the whole network's, or of other dimensions.
    """
    for path, module in net.named_modules():
        for held in (module._parameters, module._buffers):
            for key, tensor in held.items():
                shape = shapes.get(f"{path}.{key}")
                if tensor is not None and shape is not None and tuple(shape) != tensor.shape:
                    held[key] = _like(tensor, tuple(shape), f"{path}.{key}")
    for module in net.modules():  # attention asks a layer inside it
        recount(module)


def _like(tensor: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    if len(shape) != tensor.ndim or not all(0 < new <= old for new, old in zip(shape, tensor.shape, strict=True)):
        raise DataError(f"{name} is {shape}, which is no part of {tuple(tensor.shape)}")
    made = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def recount(module: Any) -> None:
    """Let a layer know of the shape that its weights have."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups > 1 and module.groups == module.out_channels
        module.groups = weight.shape[0] if depthwise else module.groups
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        counted = weight if weight is not None else module.running_mean
        module.num_features = len(counted) if counted is not None else module.num_features
    elif isinstance(module, nn.LayerNorm) and weight is not None:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(getattr(module, "qkv", None), nn.Linear) and hasattr(module, "head_dim"):  # timm's attention
        module.attn_dim = module.qkv.weight.shape[0] // 3
        module.head_dim = module.attn_dim // module.num_heads
        module.scale = module.head_dim**-0.5
