from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn

from tests.engines.gradients import TOLERANCE, Call, assert_same, check, energy, image, layer

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "clamp": lambda x: x.clamp(-1, 2),
    "exp": torch.exp,
    "square": lambda x: x**2,
    "rsub": lambda x: 1 - x * x,
    "rsub of a tensor": lambda x: torch.rsub(x, x * x, alpha=3),
    "reciprocal root": lambda x: (x * x + 1).rsqrt(),
    "logsumexp": lambda x: x.logsumexp(1),
    "logsumexp of two axes": lambda x: x.logsumexp((2, 3), keepdim=True),
    "softmax": lambda x: x.softmax(1),
    "softmax of the last axis": lambda x: x.softmax(-1),
}


#: The derivative's 1/6 is a float32 in aten whatever the type.
SIXTH = {"hardsigmoid": 1e-7, "hardswish": 1e-7}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    check(Call(ACTIVATIONS[name]), 3 * image(2, 4, 5, 6), SIXTH.get(name, TOLERANCE))


@pytest.mark.parametrize("name", ["relu", "relu6", "hardswish", "hardsigmoid", "clamp"])
def test_activation_at_its_corners(name: str) -> None:
    module = Call(ACTIVATIONS[name]).eval()
    x = torch.tensor([[-3.0, -1.0, 0.0, 2.0, 3.0, 6.0]], dtype=torch.float64)
    labels = torch.zeros(1, dtype=torch.int64)
    graph = trace_value_and_gradient(module, energy, (x, labels))
    for a, b in zip(graph(x, labels), EagerGradientEngine(module, energy).run(x, labels), strict=True):
        assert_same(a, b, SIXTH.get(name, TOLERANCE))


@pytest.mark.parametrize("inplace", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid])
def test_activation_in_place(inplace: type[nn.Module]) -> None:
    check(layer(nn.Sequential(nn.Conv2d(2, 3, 1), inplace(inplace=True))), image(2, 2, 4, 4), 1e-7)
