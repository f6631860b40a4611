"""Narrower networks by structured pruning: whole channels go, wherever layers must agree about them.

Reference: Fang et al. 2023, "DepGraph: towards any structural pruning", whose torch-pruning finds the layers that must
agree; criteria of Molchanov et al. 2019 (Taylor), Liu et al. 2017 (scale of batch norm), Li et al. 2017 (magnitude).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_fast.config.distill import InheritConfig
from prism_fast.errors import InputError
from prism_fast.models.architecture import refusal
from prism_fast.models.classifier import Classifier
from prism_fast.models.resize import resized
from prism_fast.models.structure.narrow import recount
from prism_fast.models.structure.spliced import Spliced

#: Pictures that the gradient is averaged over.
_PICTURES = 1024
#: Convolutions keep a multiple of as many channels, which CPUs and GPUs compute as one; and never fewer.
_MULTIPLE = 8


@torch.enable_grad()
def prune(
    net: Spliced,
    inherit: InheritConfig,
    teacher: Classifier,
    image_size: int,
    images: Callable[[], Iterator[Tensor]] | None,
) -> None:
    """Keep the part ``inherit.width`` of each layer's channels, those that the criterion finds most important.

    What goes into a frozen head keeps its channels, and the logits are as many as before. ``net`` holds the teacher's
    weights, on the CPU.

    Raises:
        InputError: the network or the criterion does not allow it, or there are no pictures for the gradient.
    """
    import torch_pruning

    architecture = teacher.config.architecture
    importance = _importance(net, inherit, teacher, images)
    picture = torch.zeros(1, 3, image_size, image_size)
    was = {name: weight.shape for name, weight in net.named_parameters()}
    net.eval().requires_grad_(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says which dimension of gammas and embeddings it takes: the last
            pruner = torch_pruning.pruner.BasePruner(
                net,
                picture,
                importance,
                pruning_ratio=1 - inherit.width,
                pruning_ratio_dict=_rounded(net, inherit.width),
                ignored_layers=[net.projection, net.head] if net.frozen else [net.get_classifier()],
                num_heads={m.qkv: m.num_heads for m in _attentions(net)},
                in_channel_groups={},  # its defaults are shared by all pruners of a process
                out_channel_groups={},
                channel_groups={},
            )
            pruner.step()
    except Exception as error:  # it raises whatever the layer raises that it does not understand
        raise _refused(architecture, (str(error).splitlines() or [type(error).__name__])[0]) from error
    for module in net.modules():
        recount(module)
    net.zero_grad(set_to_none=True)
    if (why := refusal(net, image_size)) is not None:
        raise _refused(architecture, why)
    if all(weight.shape == was[name] for name, weight in net.named_parameters()):
        raise _refused(architecture, f"no layer has a channel to spare at {inherit.width}")


def _refused(architecture: str, why: str) -> InputError:
    return InputError(f"{architecture} cannot be made narrower ({why}); set distill.inherit.width to 1")


def _attentions(net: nn.Module) -> list[Any]:
    return [m for m in net.modules() if isinstance(getattr(m, "qkv", None), nn.Linear) and hasattr(m, "num_heads")]


def _rounded(net: Spliced, width: float) -> dict[nn.Module, float]:
    """The part that each convolution loses, so that what it keeps is a multiple of eight; heads of attention stay."""
    if _attentions(net):
        return {}
    layers = [m for m in net.trunk.modules() if isinstance(m, nn.Conv2d) and m.groups in (1, m.out_channels)]
    # Half a channel more, for it rounds down.
    return {layer: 1 - (kept_channels(layer.out_channels, width) + 0.5) / layer.out_channels for layer in layers}


def kept_channels(channels: int, width: float) -> int:
    """The multiple of eight nearest to ``width * channels``, at least eight and no more than there are."""
    return min(channels, max(_MULTIPLE, int(channels * width / _MULTIPLE + 0.5) * _MULTIPLE))


def _importance(
    net: Spliced, inherit: InheritConfig, teacher: Classifier, images: Callable[[], Iterator[Tensor]] | None
) -> Any:
    from torch_pruning.pruner.importance import BNScaleImportance, GroupMagnitudeImportance, GroupTaylorImportance

    if inherit.criterion == "magnitude":
        return GroupMagnitudeImportance()
    if inherit.criterion == "batch_norm":
        if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.trunk.modules()):
            raise InputError(
                f"distill.inherit.criterion is batch_norm, but {teacher.config.architecture} has no batch norm; set it "
                "to gradient or magnitude"
            )
        return BNScaleImportance()
    found = gradients(teacher, images)
    for name, weight in net.named_parameters():
        gradient = found.get(name.partition(".")[2])
        fits = gradient is not None and gradient.shape == weight.shape
        weight.grad = gradient.clone() if gradient is not None and fits else torch.zeros_like(weight)
    return GroupTaylorImportance()


@torch.enable_grad()
def gradients(teacher: Classifier, images: Callable[[], Iterator[Tensor]] | None) -> dict[str, Tensor]:
    """Of the teacher's cross-entropy with its own decision, by the names of its weights, on the CPU.

    Raises:
        InputError: there are no pictures.
    """
    net = copy.deepcopy(teacher.net).eval().requires_grad_(True)
    device, size, seen = next(net.parameters()).device, teacher.config.image_size, 0
    for batch in images() if images is not None else ():
        logits = net(resized(batch.to(device, torch.float32), size, size))
        F.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()
        seen += len(batch)
        if seen >= _PICTURES:
            break
    if not seen:
        raise InputError(
            "distill.inherit.criterion is gradient, which needs synthetic pictures, and there are none; set it to "
            "magnitude or batch_norm"
        )
    return {name: weight.grad.cpu() / seen for name, weight in net.named_parameters() if weight.grad is not None}
