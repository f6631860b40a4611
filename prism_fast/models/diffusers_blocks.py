"""The one file that reaches into diffusers' blocks: a UNet cut in two, and norms that are fused with their activation.

The UNet becomes the whole, which also gives its deep feature, and the shallow rest that reuses it. Reference: Ma et al.
2023, "DeepCache": the input of the last up block changes slowly from step to step.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from prism_kernels import group_norm_silu
from torch import nn


def _embed(
    unet: Any, z: torch.Tensor, t: torch.Tensor, text: torch.Tensor, added: dict[str, torch.Tensor] | None
) -> Any:
    embedded = unet.time_embedding(unet.get_time_embed(z, t))
    more = unet.get_aug_embed(embedded, text, added or {})
    return embedded if more is None else embedded + more


def _down(block: Any, x: torch.Tensor, temb: torch.Tensor, text: torch.Tensor) -> Any:
    if getattr(block, "has_cross_attention", False):
        return block(hidden_states=x, temb=temb, encoder_hidden_states=text)
    return block(hidden_states=x, temb=temb)


def _mid(block: Any, x: torch.Tensor, temb: torch.Tensor, text: torch.Tensor) -> Any:
    if getattr(block, "has_cross_attention", False):
        return block(x, temb, encoder_hidden_states=text)
    return block(x, temb)


def _up(
    block: Any,
    x: torch.Tensor,
    skips: tuple[torch.Tensor, ...],
    temb: torch.Tensor,
    text: torch.Tensor,
    size: torch.Size | None = None,
) -> Any:
    more = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
    return block(hidden_states=x, res_hidden_states_tuple=skips, temb=temb, upsample_size=size, **more)


def _head(unet: Any, x: torch.Tensor) -> Any:
    if unet.conv_norm_out is not None:
        x = unet.conv_act(unet.conv_norm_out(x))
    return unet.conv_out(x)


def added_conditions(extra: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor] | None:
    """SDXL's pooled text (n, width) and time ids (n, 6), when they are given."""
    return {"text_embeds": extra[0], "time_ids": extra[1]} if extra else None


class WholeUNet(nn.Module):
    """``(z, t, text[, pooled, time_ids]) -> prediction``."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, z: torch.Tensor, t: torch.Tensor, text: torch.Tensor, *extra: torch.Tensor) -> torch.Tensor:
        """The prediction, shaped like ``z``."""
        added = added_conditions(extra)
        out: torch.Tensor = self.unet(z, t, text, added_cond_kwargs=added, return_dict=False)[0]
        return out


class DeepUNet(nn.Module):
    """``(z, t, text[, ...]) -> (prediction, feature)``: the feature enters the last up block."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = unet

    def forward(
        self, z: torch.Tensor, t: torch.Tensor, text: torch.Tensor, *extra: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same prediction as the UNet's own forward."""
        unet = self.unet
        temb = _embed(unet, z, t, text, added_conditions(extra))
        x = unet.conv_in(z)
        skips = (x,)
        for block in unet.down_blocks:
            x, made = _down(block, x, temb, text)
            skips += made
        if unet.mid_block is not None:
            x = _mid(unet.mid_block, x, temb, text)
        # As in the UNet's own forward: sizes that do not halve evenly are restored by name.
        resized = any(size % 2**unet.num_upsamplers for size in z.shape[2:])
        feature = x
        for block in unet.up_blocks:
            feature, count = x, len(block.resnets)
            used, skips = skips[-count:], skips[:-count]
            x = _up(block, x, used, temb, text, skips[-1].shape[2:] if resized and skips else None)
        return _head(unet, x), feature


class ShallowUNet(nn.Module):
    """``(z, t, text[, ...], feature) -> prediction``: the first down block and the last up block alone."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = unet

    def forward(self, z: torch.Tensor, t: torch.Tensor, text: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        """Exact when ``feature``, the last input, was computed from the same inputs."""
        unet = self.unet
        *extra, feature = more
        temb = _embed(unet, z, t, text, added_conditions(tuple(extra)))
        x = unet.conv_in(z)
        last = unet.up_blocks[-1]
        _, made = _down(unet.down_blocks[0], x, temb, text)
        skips = (x, *made)[: len(last.resnets)]
        out: torch.Tensor = _head(unet, _up(last, feature, skips, temb, text))
        return out


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
