"""The graph of a module alone, without a gradient: what passes and lowerings are easiest seen in."""

from __future__ import annotations

import torch
from prism_engines.vjp import trace
from torch import Tensor, nn


def trace_forward(module: nn.Module, inputs: tuple[Tensor, ...]) -> torch.fx.GraphModule:
    """Static graph of ``module(*inputs)``, returning a tuple."""

    def forward(*args: Tensor) -> tuple[Tensor, ...]:
        out = module(*args)
        return out if isinstance(out, tuple) else (out,)

    with torch.no_grad():
        return trace(forward, module, inputs)
