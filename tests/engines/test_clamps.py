"""ReLU6's derivative reads ReLU6's result, so that nobody keeps what it took."""

from __future__ import annotations

import pytest
import torch
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn

from tests.engines.gradients import Call, assert_same, energy, image, randomise
from tests.engines.tracing import trace_forward

_aten = torch.ops.aten


@pytest.mark.parametrize("inplace", [False, True])
def test_the_derivative_looks_at_the_clamped_value(inplace: bool) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(inplace), nn.Conv2d(4, 2, 3), nn.Hardtanh(-1, 2, inplace))
    module, inputs = randomise(Call(lambda x, net: net(x), net=layers)), (image(2, 3, 8, 8), torch.tensor([0, 0]))
    graph = trace_value_and_gradient(module, energy, inputs)
    compared = [n.args[0] for n in graph.graph.nodes if n.target in (_aten.gt.Scalar, _aten.lt.Scalar)]
    assert len(compared) == 4
    assert {n.target for n in compared} == {_aten.clamp.default}
    forward = [n for n in graph.graph.nodes if any(user.target is _aten.clamp.default for user in n.users)]
    assert [len(n.users) for n in forward] == [1, 1]
    for found, wanted in zip(graph(*inputs), EagerGradientEngine(module, energy).run(*inputs), strict=True):
        assert_same(found, wanted)


class Compared(nn.Module):
    """Comparisons that are not the clamp's own."""

    def forward(self, x: Tensor) -> Tensor:
        before = x > 0  # what is not there yet cannot be compared
        return x.clamp(0, 6) + (x > 1) + (x < 0) + before


def test_other_comparisons_stay() -> None:
    x = image(2, 3, 4, 4)
    graph = trace_forward(Compared(), (x,))
    compared = [n.args[0] for n in graph.graph.nodes if n.target in (_aten.gt.Scalar, _aten.lt.Scalar)]
    assert [n.op for n in compared] == ["placeholder"] * 3
    assert_same(graph(x)[0], Compared()(x))
