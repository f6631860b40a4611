"""A timm network in parts: its block groups, what comes after them, its pooling and classifier.

timm's networks compute ``forward_head(forward_features(x))``; which of their modules belong to which is found by
running them once on the meta device, where nothing is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prism_fast.errors import InputError
from prism_fast.models.structure.description import Activation

#: How features lie in memory: maps with channels first or last, or tokens.
Layout = Literal["NCHW", "NHWC", "NLC"]
#: Where timm's families keep their block groups: in one container, or in attributes with numbers.
_CONTAINERS = ("blocks", "stages", "layers", "levels")
_NUMBERED = ("layer{}", "s{}", "stage{}")
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hard_swish": nn.Hardswish,
}
#: timm's own classes of the same functions.
_ALIASES: dict[str, Activation] = {"Swish": "silu", "SwishMe": "silu", "GELUTanh": "gelu", "HardSwishMe": "hard_swish"}
_KNOWN: dict[str, Activation] = {cls.__name__: name for name, cls in ACTIVATIONS.items()} | _ALIASES


@dataclass(frozen=True)
class Anatomy:
    """Parts of a network by the names of its modules.

    Attributes:
        groups: paths of its block groups from the input on; none where the family keeps them in a way unknown here.
        body: its children that compute the features before the pooling.
        tail: of those, what comes after the last group.
        layout: how the features lie in memory.
        channels: how many there are.
        prefix: tokens before those of the picture.
        activation: what the features come out of.
    """

    groups: tuple[str, ...]
    body: frozenset[str]
    tail: tuple[str, ...]
    layout: Layout
    channels: int
    prefix: int
    activation: Activation


def examine(net: nn.Module, image_size: int) -> Anatomy:
    """The anatomy of a timm network, by one picture of this size through a copy without weights.

    Raises:
        InputError: it has no features before a pooling, or takes no such picture.
    """
    if not callable(getattr(net, "forward_features", None)) or not callable(getattr(net, "forward_head", None)):
        raise InputError(f"{type(net).__name__} has no forward_features and forward_head; expected a timm network")
    twin: Any = copy.deepcopy(net).to("meta").eval()
    try:
        with _recorded(twin) as calls, torch.no_grad():
            features = twin.forward_features(torch.zeros(1, 3, image_size, image_size, device="meta"))
    except Exception as error:  # each architecture raises what its first layer that minds raises
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{type(net).__name__} gives no features of {image_size} px ({why})") from error
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise InputError(f"{type(net).__name__} gives no maps or tokens before its pooling; it cannot be taken apart")
    layout: Layout = "NLC" if features.ndim == 3 else "NHWC" if getattr(net, "output_fmt", "") == "NHWC" else "NCHW"
    groups = _groups(net)
    order = list(dict.fromkeys(path.partition(".")[0] for path, _, _ in calls))
    last = groups[-1].partition(".")[0] if groups else None
    return Anatomy(
        groups=groups,
        body=frozenset(order),
        tail=tuple(order[order.index(last) + 1 :]) if last in order else (),
        layout=layout,
        channels=features.shape[1 if layout == "NCHW" else -1],
        prefix=int(getattr(net, "num_prefix_tokens", 0)) if layout == "NLC" else 0,
        activation=_activation(calls, features),
    )


_Call = tuple[str, nn.Module, Any]


@contextmanager
def _recorded(net: nn.Module) -> Iterator[list[_Call]]:
    """Path, module and output of each module that is called inside, in the order in which they end."""
    calls: list[_Call] = []
    hooks = [
        module.register_forward_hook(lambda module, _, output, path=path: calls.append((path, module, output)))
        for path, module in net.named_modules()
        if path
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _groups(net: nn.Module) -> tuple[str, ...]:
    for name in _CONTAINERS:
        held = getattr(net, name, None)
        if isinstance(held, nn.Sequential | nn.ModuleList) and len(held) > 1:
            return tuple(f"{name}.{key}" for key, _ in held.named_children())
    for pattern in _NUMBERED:
        names = tuple(takewhile(lambda name: hasattr(net, name), map(pattern.format, count(1))))
        if len(names) > 1:
            return names
    return ()


def _activation(calls: Iterable[_Call], features: Tensor) -> Activation:
    """The activation that ``features`` are the output of; of a sum or a norm ``identity``."""
    leaves = [
        (module, output)
        for _, module, output in calls
        if not any(module.children()) and not isinstance(module, nn.Identity | nn.Dropout)
    ]
    module, output = leaves[-1] if leaves else (nn.Identity(), None)
    return _KNOWN.get(type(module).__name__, "identity") if output is features else "identity"


def keep_groups(net: nn.Module, anatomy: Anatomy, blocks: int) -> None:
    """Leave the first block groups of a network; its ``forward_features`` then ends after them.

    Raises:
        InputError: its groups are unknown, or there are not as many of them.
    """
    name, groups = type(net).__name__, anatomy.groups
    if not groups:
        raise InputError(f"the block groups of a {name} are not known here, so that it cannot be cut; keep all of them")
    if not 1 <= blocks <= len(groups):
        raise InputError(f"{name} has {len(groups)} block groups; expected 1 to {len(groups)} to keep, got {blocks}")
    parent, inside, _ = groups[0].partition(".")
    if inside:
        setattr(net, parent, getattr(net, parent)[:blocks])
    for path in (*(() if inside else groups[blocks:]), *anatomy.tail):
        setattr(net, path, nn.Identity())


def keep_children(net: nn.Module, names: Iterable[str]) -> None:
    """Put nothing in the place of every other child that holds weights."""
    kept = set(names)
    for name, child in list(net.named_children()):
        if name not in kept and any(True for _ in (*child.parameters(), *child.buffers())):
            setattr(net, name, nn.Identity())


def keep_head(net: nn.Module, anatomy: Anatomy) -> None:
    """Leave what ``forward_head`` needs."""
    keep_children(net, [name for name, _ in net.named_children() if name not in anatomy.body])
    for held in (net._parameters, net._buffers):  # tokens and embeddings
        for name in held:
            held[name] = None
