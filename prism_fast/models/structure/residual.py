"""The residual blocks of a network, and a network without some of them.

Reference: Veit et al. 2016, "Residual networks behave like ensembles of relatively shallow networks": a block whose
input is added to its output can be left out of a trained network, which then gives almost what it gave.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prism_fast.errors import InputError


class LeftOut(nn.Module):
    """In the place of a residual block: gives its first argument back."""

    def forward(self, features: Tensor, *_: Any, **__: Any) -> Tensor:
        """Shapes: any."""
        return features


def residual_blocks(net: nn.Module, within: Iterable[str], image_size: int) -> tuple[str, ...]:
    """Paths of the modules inside ``within`` that give their input back when their weights are zero.

    Of modules inside each other the innermost, from the input on. A picture of this size goes through a copy of
    ``net``.
    """
    twin = copy.deepcopy(net).cpu().float().eval()
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs, path=path: calls.update({path: (args, kwargs)}), with_kwargs=True
        )
        for path, module in twin.named_modules()
    ]
    with torch.no_grad():
        twin(torch.zeros(1, 3, image_size, image_size))
        for hook in hooks:
            hook.remove()
        return tuple(path for start in within for path in _innermost(twin, start, calls))


def _innermost(net: nn.Module, path: str, calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]]) -> Iterator[str]:
    module = net.get_submodule(path)
    inside = [one for name, _ in module.named_children() for one in _innermost(net, f"{path}.{name}", calls)]
    if inside:
        yield from inside
    elif path in calls and any(True for _ in module.parameters()) and _adds(module, *calls[path]):
        yield path


def _adds(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a module without weights gives its input back: an activation at its end has seen positive numbers."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return False
    silent = copy.deepcopy(module)
    for held in silent.parameters():
        held.zero_()
    shown = torch.linspace(0.1, 1, args[0].numel()).view(args[0].shape)
    found = silent(shown, *args[1:], **kwargs)
    return isinstance(found, Tensor) and found.shape == shown.shape and torch.allclose(found, shown)


def leave_out(net: nn.Module, paths: Iterable[str]) -> None:
    """Take these modules out of a network.

    Raises:
        InputError: it has no such module.
    """
    for path in paths:
        try:
            net.set_submodule(path, LeftOut(), strict=True)
        except (AttributeError, ValueError) as error:  # an empty path is a ValueError
            raise InputError(f"{type(net).__name__} has no block {path} to leave out") from error


@contextmanager
def without(net: nn.Module, path: str) -> Iterator[None]:
    """Inside, the network lacks this module."""
    module = net.get_submodule(path)
    net.set_submodule(path, LeftOut())
    try:
        yield
    finally:
        net.set_submodule(path, module)
