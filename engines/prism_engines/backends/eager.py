"""Eager torch: the oracle that every other backend is measured against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from prism_engines.base import Around, Engine, Opened

EnergyAndCotangent = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class _Eager(Opened):
    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module.eval().requires_grad_(False), name


class EagerEngine(_Eager):
    """A module's forward pass; a tensor result becomes a tuple of one. Follows the caller's gradient mode."""

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The module's outputs."""
        out = self.module(*inputs)
        return out if isinstance(out, tuple) else (out,)


class EagerGradientEngine(_Eager):
    """Energy, its gradient by the first input, and logits, through autograd.

    ``module(x, *views)`` returns logits (n, k); ``energy(logits, labels)`` returns the energy of each sample (n,) and
    its gradient by the logits (n, k). ``run(x, labels, *views)`` returns ``(energy (n,), gradient like x, logits)``.
    """

    def __init__(self, module: nn.Module, energy: EnergyAndCotangent, name: str = "energy_gradient") -> None:
        super().__init__(module, name)
        self.energy = energy

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Energy, gradient and logits of ``(x, labels, *views)``."""
        x, labels, *views = inputs
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.module(x, *views)
            value, cotangent = self.energy(logits.detach(), labels)
            (gradient,) = torch.autograd.grad(logits, x, cotangent.to(logits.dtype))
        return value, gradient, logits.detach()


class InChunks(Around):
    """An engine that is given at most ``rows`` rows at once: what bounds the memory of a gradient."""

    def __init__(self, engine: Engine, rows: int) -> None:
        super().__init__(engine)
        self.rows = rows

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The engine's outputs of each chunk, one after the other."""
        if len(inputs[0]) <= self.rows:
            return self.engine.run(*inputs)
        parts = [self.engine.run(*chunk) for chunk in zip(*(x.split(self.rows) for x in inputs), strict=True)]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))
