"""Trace a module, or the value and gradient of an energy of it, into one static graph that exports and compiles.

No inference engine differentiates. So the backward pass is recorded as ordinary operators: autograd runs once, under
``make_fx``, and every operator it calls is either a primitive that exporters take or is replaced by its lowering
(:mod:`prism_engines.lowerings`). Weights are constants; products of constants alone are folded while tracing, batch
norms thereby become one scale and one shift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from prism_kernels import use_backend
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from prism_engines.errors import EngineInputError, UnsupportedOpError
from prism_engines.lowerings import LOWERINGS, Lowering
from prism_engines.passes import simplify
from prism_engines.primitives import PRIMITIVES

EnergyAndCotangent = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class _Lower(TorchDispatchMode):
    """Replace operators by their lowerings; refuse what is neither lowered nor primitive."""

    def __init__(self, module: nn.Module, lowerings: Mapping[Any, Lowering]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module, self.lowerings = module, lowerings
        self.path: list[str] = []
        self.ran_in: dict[str, str] = {}

    @contextmanager
    def following(self) -> Iterator[None]:
        """Know which submodule is running."""
        hooks = []
        for name, part in self.module.named_modules():
            label = f"{name or 'the module'} ({type(part).__name__})"
            hooks.append(part.register_forward_pre_hook(lambda *_, label=label: self.path.append(label)))
            hooks.append(part.register_forward_hook(lambda *_: self.path.pop() and None, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _origin(self, name: str) -> str:
        forward = name.removesuffix("_backward").removesuffix("_backward_data")
        return self.path[-1] if self.path else self.ran_in.get(forward, "the objective")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if self.path:
            self.ran_in[name] = self.path[-1]
        with self:
            lowering = self.lowerings.get(func)
            out = lowering(*args, **kwargs) if lowering else NotImplemented
            if out is NotImplemented and name not in PRIMITIVES:
                out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        if name in PRIMITIVES:
            return func(*args, **kwargs)
        raise UnsupportedOpError(
            f"operator {func} of {self._origin(name)} has no export-safe form; add one to prism_engines.lowerings, "
            f"or run this part with the eager backend"
        )


def trace(
    f: Callable[..., Any],
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    lowerings: Mapping[Any, Lowering] = LOWERINGS,
) -> torch.fx.GraphModule:
    """Static graph of ``f(*inputs)``, a function that runs ``module``: its weights become constants.

    Raises:
        EngineInputError: a weight requires a gradient.
        UnsupportedOpError: an operator has no lowering; the message names it and its module.
    """
    if any(p.requires_grad for p in module.parameters()):
        raise EngineInputError("tracing needs constant weights; call module.eval().requires_grad_(False) first")
    for name, part in module.named_modules():
        if part.training and isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise UnsupportedOpError(
                f"{name or 'the module'} ({type(part).__name__}) is in training mode: native_batch_norm's batch "
                "statistics couple the samples; call eval() on the module"
            )
    mode = _Lower(module, lowerings)

    def lowered(*args: torch.Tensor) -> Any:
        with mode.following(), use_backend("reference"), mode, sdpa_kernel(SDPBackend.MATH):
            return f(*args)

    graph = make_fx(torch.func.functionalize(lowered, remove="mutations"))(*inputs)
    simplify(graph)
    return graph


def trace_value_and_gradient(
    module: nn.Module,
    energy: EnergyAndCotangent,
    inputs: tuple[torch.Tensor, ...],
    lowerings: Mapping[Any, Lowering] = LOWERINGS,
) -> torch.fx.GraphModule:
    """Static graph of ``(x, labels, *views) -> (energy, dE/dx, logits)``.

    ``module(x, *views)`` gives logits (n, k) and ``energy(logits, labels)`` gives each sample's energy (n,) with its
    derivative by the logits (n, k): the cotangent that the module's vector-Jacobian product is taken with.

    Raises:
        EngineInputError, UnsupportedOpError: as :func:`trace`.
    """

    def value_and_gradient(x: torch.Tensor, labels: torch.Tensor, *views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pair: Any = torch.func.vjp(lambda z: module(z, *views), x)
        logits, pull_back = pair
        value, cotangent = energy(logits, labels)
        (gradient,) = pull_back(cotangent.to(logits.dtype))
        return value, gradient, logits

    return trace(value_and_gradient, module, inputs, lowerings)
