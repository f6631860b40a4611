"""Optimisers of timm and torch, what they decay, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from prism_fast.config import DistillConfig
from prism_fast.errors import InputError

_SGD_MOMENTUM = 0.9
#: Those of which torch has a kernel that updates all parameters in one launch.
_FUSED = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def learning_rate(step: int, config: DistillConfig) -> float:
    """Rate of the 0-based step: linear warm-up, then half a cosine down to zero; or constant, then linear down to zero.

    Reference: Loshchilov and Hutter 2017, SGDR, equation 5 without restarts; warm-up after Goyal et al. 2017;
    warm-up, stable, decay after Hu et al. 2024, MiniCPM, section 4.
    """
    warmup = min(config.warmup_steps, config.steps - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup)))
    falling = max(1, round(config.decay_share * (config.steps - warmup)))
    return config.lr * min(1.0, (config.steps - step) / falling)


def make_optimizer(
    model: nn.Module, config: DistillConfig, others: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimiser of a student's weights that are trained; norms and biases are not decayed.

    With ``layer_decay`` d a group's rate has the factor d to the power of its distance from the last layer.

    Args:
        model: the student.
        config: which optimiser, and its constants.
        others: what a loss learns besides; not decayed.

    Raises:
        InputError: nothing of it is trained.
    """
    groups = [*_groups(model, config), *({"params": held, "weight_decay": 0.0} for held in [list(others)] if held)]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise InputError("this student has no weight that is trained; see distill.inherit")
    if config.optimizer not in _FUSED:
        return _of_timm(groups, config)
    fused = True if next(model.parameters()).is_cuda else None
    momentum: dict[str, Any] = {"momentum": _SGD_MOMENTUM, "nesterov": True} if config.optimizer == "sgd" else {}
    made: torch.optim.Optimizer = _FUSED[config.optimizer](
        groups, lr=config.lr, weight_decay=0.0, fused=fused, **momentum
    )
    return made


def _groups(model: nn.Module, config: DistillConfig) -> list[dict[str, Any]]:
    """Checkpoints know parameters by their place in these."""
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    if config.layer_decay is None:
        return list(reversed(param_groups_weight_decay(model, config.weight_decay)))
    found: list[dict[str, Any]] = param_groups_layer_decay(model, config.weight_decay, layer_decay=config.layer_decay)
    return found


def _of_timm(groups: list[dict[str, Any]], config: DistillConfig) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2

    # LAMB would clip the gradient a second time, to 1.
    own: dict[str, Any] = {"max_grad_norm": None} if config.optimizer == "lamb" else {}
    made: torch.optim.Optimizer = create_optimizer_v2(
        groups, opt=config.optimizer, lr=config.lr, weight_decay=0.0, **own
    )
    return made


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state that may have been saved on another kind of device; whether it is fused is decided here.

    Raises:
        ValueError: it is of other parameters.
    """
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    groups = [{**saved, **({"fused": own["fused"]} if "fused" in own else {})} for saved, own in pairs]
    optimizer.load_state_dict({**state, "param_groups": groups})
    _require_shapes(optimizer)


def _require_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Refuse averages that are not those of their parameters, which the optimiser would say at its next step."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape not in ((), parameter.shape):
                raise ValueError(f"optimizer: {name} is {[*value.shape]} for a parameter of {[*parameter.shape]}")
