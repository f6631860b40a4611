"""Let a decoder normalise and activate in one operator: for the energy gradient in eager torch on a GPU.

Compiled engines fuse by themselves; only modules that torch runs one by one gain.
"""

from __future__ import annotations

import torch
from diffusers.models.resnet import ResnetBlock2D
from prism_kernels import group_norm_silu
from torch import nn


class GroupNormSiLU(nn.Module):
    """``silu(group_norm(x))`` with a frozen norm's weights."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: (n, c, h, w) in and out."""
        norm = self.norm
        return group_norm_silu(x, norm.weight, norm.bias, norm.num_groups, norm.eps)


def _fusible(norm: nn.Module, activation: nn.Module) -> bool:
    return isinstance(norm, nn.GroupNorm) and norm.affine and isinstance(activation, nn.SiLU)


def fuse_norms(network: nn.Module) -> int:
    """Replace every group norm that a SiLU follows, in place; returns how many there were.

    Handles diffusers' residual blocks without time embedding and the norm before the last convolution; anything else is
    left as it is.
    """
    found = 0
    for module in list(network.modules()):
        if isinstance(module, ResnetBlock2D) and module.time_emb_proj is None:
            if all(_fusible(norm, module.nonlinearity) for norm in (module.norm1, module.norm2)):
                module.norm1, module.norm2 = GroupNormSiLU(module.norm1), GroupNormSiLU(module.norm2)
                module.nonlinearity, found = nn.Identity(), found + 2
        elif _fusible(getattr(module, "conv_norm_out", None), getattr(module, "conv_act", None)):  # type: ignore[arg-type]
            module.conv_norm_out, module.conv_act = GroupNormSiLU(module.conv_norm_out), nn.Identity()  # type: ignore[arg-type]
            found += 1
    return found
