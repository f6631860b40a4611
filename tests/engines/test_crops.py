"""What a crop throws away is not computed, and what it keeps is the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn

from tests.engines.gradients import assert_same, energy, image, randomise
from tests.engines.test_folding import counts
from tests.engines.tracing import trace_forward


class SamePadded(nn.Module):
    """A convolution of stride two after the uneven padding that TensorFlow's ``SAME`` gives."""

    def __init__(self, size: int, pads: tuple[int, int, int, int], groups: int) -> None:
        super().__init__()
        self.conv, self.pads = nn.Conv2d(4, 8, size, 2, groups=groups), pads

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, self.pads))
        return y.flatten(1)


def sizes(graph: torch.fx.GraphModule, *inputs: Tensor) -> list[tuple[int, ...]]:
    """Height and width of every convolution's result."""
    found: list[tuple[int, ...]] = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            out = super().run_node(n)
            if n.target is torch.ops.aten.convolution.default:
                assert isinstance(out, Tensor)
                found.append(tuple(out.shape[2:]))
            return out

    Watch(graph).run(*inputs)
    return found


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    ("size", "pads"),
    [(3, (0, 1, 0, 1)), (5, (1, 2, 1, 2)), (3, (1, 1, 1, 1)), (5, (3, 0, 1, 2)), (4, (1, 1, 2, 2))],
    ids=str,
)
@pytest.mark.parametrize("shape", [(8, 8), (12, 6)], ids=str)
def test_the_derivative_of_padding_costs_nothing(
    shape: tuple[int, int], size: int, pads: tuple[int, int, int, int], groups: int
) -> None:
    module, x = randomise(SamePadded(size, pads, groups)), image(2, 4, *shape)
    inputs = (x, torch.zeros(2, dtype=torch.int64))
    graph = trace_value_and_gradient(module, energy, inputs)
    for found, wanted in zip(graph(*inputs), EagerGradientEngine(module, energy).run(*inputs), strict=True):
        assert_same(found, wanted)
    if groups > 1:
        assert sizes(graph, *inputs)[-1] == shape
    elif not (pads[0] % 2 or pads[2] % 2):  # a sub-pixel phase cannot be left out alone
        assert sizes(graph, *inputs)[-1] == tuple(n // 2 for n in shape)


class After(nn.Module):
    """``body`` of a convolution's result."""

    def __init__(self, body: Callable[[Tensor], Tensor], stride: int = 1, channels: int = 8) -> None:
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, channels, 3, stride, padding=1), body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.conv(x))


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (lambda y: F.pad(y, (-1, -2, 0, -3)), (6, 6)),
        (lambda y: y[:, :, 1:7, 2:], (6, 7)),
        (lambda y: F.pad(y[:, :, 1:], (-1, 0, -2, 0)), (6, 8)),
        (lambda y: F.pad(F.pixel_shuffle(y, 2), (-2, 0, 0, -4)), (7, 8)),
    ],
    ids=["padding", "slices", "both", "shuffled"],
)
def test_a_convolution_computes_what_is_kept(body: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
    module, x = randomise(After(body)), image(2, 3, 9, 9)
    graph = trace_forward(module, (x,))
    assert_same(graph(x)[0], module(x))
    assert sizes(graph, x) == [size]
    assert counts(graph)["slice"] == 0


@pytest.mark.parametrize(
    "body",
    [
        lambda y: F.pad(y, (-1, 0, 0, 0)).sum((2, 3)) + y.sum((2, 3)),
        lambda y: F.pad(F.pixel_shuffle(y, 2), (-1, 0, 0, 0)),
        lambda y: F.pad(y.relu(), (-1, 0, 0, 0)),
        lambda y: F.pad(y, (-1, 1, 0, 0)),
        lambda y: y[:, 2:],
        lambda y: y[:, :, ::2],
    ],
    ids=["another-user", "odd-after-shuffle", "not-next", "grows-too", "channels", "steps"],
)
def test_other_crops_stay(body: Callable[[Tensor], Tensor]) -> None:
    module, x = randomise(After(body)), image(2, 3, 8, 8)
    graph = trace_forward(module, (x,))
    assert counts(graph)["constant_pad_nd"] + counts(graph)["slice"] == 1
    assert_same(graph(x)[0], module(x))


def test_a_convolution_with_a_stride_stays() -> None:
    module, x = randomise(After(lambda y: F.pad(y, (-1, 0, -1, 0)), stride=2)), image(2, 3, 8, 8)
    graph = trace_forward(module, (x,))
    assert counts(graph)["constant_pad_nd"] == 1
    assert_same(graph(x)[0], module(x))
