"""Value and gradient of a traced module against autograd's, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.primitives import PRIMITIVES
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn

TOLERANCE = 1e-10


class Call(nn.Module):
    """A function of one tensor, with its result flattened to rows."""

    def __init__(self, f: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.f = f
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x, *self.children()).flatten(1)


def energy(y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A quadratic form of every output, so that no derivative is zero or shared."""
    weight = torch.arange(y.shape[1], dtype=y.dtype, device=y.device) * (3 / y.shape[1]) - 1
    return ((weight + 0.5 * y) * y).sum(1), weight + y


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomise(module: nn.Module) -> nn.Module:
    """Weights, biases and running statistics that are not the identity; constant, in float64, in evaluation."""
    generator = torch.Generator().manual_seed(1)
    module.double().eval().requires_grad_(False)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            random = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(random.abs() + 0.5 if name.endswith("running_var") else random)
    return module


def operators(graph: torch.fx.GraphModule) -> set[str]:
    return {
        node.target.overloadpacket.__name__ if hasattr(node.target, "overloadpacket") else node.target.__name__
        for node in graph.graph.nodes
        if node.op == "call_function"
    }


def assert_same(got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    scale = max(1.0, float(want.abs().max()))
    torch.testing.assert_close(got / scale, want / scale, rtol=0, atol=tolerance)


def check(module: nn.Module, x: Tensor, tolerance: float = TOLERANCE) -> torch.fx.GraphModule:
    """Energy, gradient and outputs of the traced graph are autograd's; every operator is a primitive."""
    module = randomise(module)
    labels = torch.zeros(len(x), dtype=torch.int64)
    graph = trace_value_and_gradient(module, energy, (x, labels))
    assert operators(graph) <= PRIMITIVES | {"getitem"}
    # Other inputs than those it was traced with: nothing of the example may have become a constant.
    other = x.flip(0) * 0.9 + 0.05
    for given in (x, other):
        want = EagerGradientEngine(module, energy).run(given, labels)
        for a, b in zip(graph(given, labels), want, strict=True):
            assert_same(a, b, tolerance)
    return graph


def layer(module: nn.Module) -> nn.Module:
    return Call(lambda x, m: m(x), layer=module)
