"""Folding makes graphs smaller and leaves what they compute."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.passes.folding import fold_constants, fold_scales
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from tests.engines.gradients import assert_same, energy, image, randomise
from tests.engines.tracing import trace_forward


def counts(graph: torch.fx.GraphModule) -> Counter[str]:
    return Counter(n.target.overloadpacket.__name__ for n in graph.graph.nodes if n.op == "call_function")


class ConvNormAct(nn.Module):
    """What most classifiers are made of."""

    def __init__(self, bias: bool = False, groups: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 8, 3, padding=1, bias=bias, groups=groups), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Flat(nn.Sequential):
    """Its rows."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x.flatten(1)


def assert_gradient(module: nn.Module, x: Tensor) -> torch.fx.GraphModule:
    labels = torch.zeros(len(x), dtype=torch.int64)
    graph = trace_value_and_gradient(module, energy, (x, labels))
    other = x + 0.1
    for a, b in zip(graph(other, labels), EagerGradientEngine(module, energy).run(other, labels), strict=True):
        assert_same(a, b)
    return graph


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_after_a_convolution_disappears(bias: bool, groups: int) -> None:
    module, x = randomise(ConvNormAct(bias, groups)), image(2, 4, 5, 5)
    graph = trace_forward(module, (x,))
    assert counts(graph) == {"convolution": 1, "relu": 1}
    assert_same(graph(x + 1)[0], module(x + 1))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_no_scale_is_left_in_the_gradient_either(groups: int) -> None:
    module = randomise(Flat(ConvNormAct(groups=groups)))
    x, labels = image(2, 4, 5, 5), torch.zeros(2, dtype=torch.int64)

    def linear(y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return y.sum(1), torch.ones_like(y)

    graph = trace_value_and_gradient(module, linear, (x, labels))
    assert not {"mul", "rsqrt", "add", "sub"} & set(counts(graph))
    assert counts(graph)["convolution"] == 2
    want = EagerGradientEngine(module, linear).run(x + 1, labels)
    for a, b in zip(graph(x + 1, labels), want, strict=True):
        assert_same(a, b)


def test_folding_shrinks_the_graph() -> None:
    module, x = randomise(nn.Sequential(ConvNormAct(), nn.Conv2d(8, 4, 1), ConvNormAct())), image(2, 4, 5, 5)
    raw = make_fx(module)(x)
    graph = trace_forward(module, (x,))
    assert len(graph.graph.nodes) < len(raw.graph.nodes)
    assert counts(graph) == {"convolution": 3, "relu": 2}
    assert_same(graph(x)[0], module(x))


def test_a_batch_norm_before_a_convolution_folds_its_scale() -> None:
    module, x = randomise(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2))), image(2, 4, 5, 5)
    graph = trace_forward(module, (x,))
    assert_same(graph(x + 1)[0], module(x + 1))
    assert_gradient(Flat(module), x)


class Shared(nn.Module):
    """A convolution's result is used twice: its norm must not change what the other use sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        normed: Tensor = self.norm(y)
        return (normed * y).flatten(1)


def test_a_shared_convolution_keeps_its_weight() -> None:
    assert_gradient(randomise(Shared()), image(2, 4, 5, 5))


class Twice(nn.Module):
    """One convolution with two norms: shared weights become two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.conv(self.a(self.conv(x))))
        return y.flatten(1)


def test_shared_weights_are_folded_apart() -> None:
    module = Twice()
    randomise(module)
    before = module.conv.weight.clone()
    assert_gradient(module, image(2, 4, 3, 3))
    assert torch.equal(module.conv.weight, before)


class Unused(nn.Module):
    """A norm whose result nobody needs: its constants go, the numbers of the others stay."""

    def __init__(self) -> None:
        super().__init__()
        self.aside, self.conv, self.norm = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return F.silu(self.norm(self.conv(x))).flatten(1)


def test_constants_of_dead_code_do_not_disturb_the_others() -> None:
    assert_gradient(randomise(Unused()), image(2, 4, 5, 5))


class Scaled(nn.Module):
    """A product with constants that are not one number a channel."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Buffer(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return (y * self.scale + self.scale).flatten(1)


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (4, 1, 1), (1, 1, 5, 5), (1, 1, 1, 1), (2, 4, 1, 1), (1, 4, 5, 5)])
def test_other_constants_are_left_where_they_are(shape: tuple[int, ...]) -> None:
    assert_gradient(randomise(Scaled(*shape)), image(2, 4, 5, 5))


def test_constants_alone_are_computed_once() -> None:
    scale = torch.arange(3.0)

    def f(x: Tensor) -> Tensor:
        first, second = torch.split(scale.exp() * 2, [1, 2])
        return x * first + torch.full((1,), 2.0) * second.sum()

    graph = make_fx(f)(torch.ones(3))
    fold_constants(graph)
    fold_scales(graph)
    assert counts(graph) == {"mul": 1, "add": 1}
    x = torch.randn(3)
    torch.testing.assert_close(graph(x), f(x))


def test_unused_constants_are_dropped() -> None:
    module, x = randomise(ConvNormAct()), image(2, 4, 5, 5)
    graph = trace_forward(module, (x,))
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    assert {name for name, _ in [*graph.named_buffers(), *graph.named_parameters()]} == used
    assert len(used) == 2


def test_a_weight_that_is_computed_is_left_alone() -> None:
    graph = make_fx(lambda x, w: F.conv2d(x, w) * torch.full((1, 2, 1, 1), 3.0))(
        torch.ones(1, 2, 3, 3), torch.ones(2, 2, 1, 1)
    )
    fold_constants(graph)
    fold_scales(graph)
    assert counts(graph) == {"convolution": 1, "mul": 1}
