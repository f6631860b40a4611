from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.vjp import trace_value_and_gradient
from torch import nn

from tests.engines.gradients import Call, check, energy, image, layer, randomise

MAX_POOLS = [
    # kernel, stride, padding, dilation, ceil_mode
    (2, 2, 0, 1, False),
    (3, 2, 1, 1, False),
    (3, 1, 1, 1, False),
    (3, 2, 0, 1, True),
    (3, 2, 1, 1, True),
    (2, 3, 1, 1, True),
    (3, 3, 1, 2, False),
    (5, 1, 2, 1, False),
    ((3, 2), (1, 2), (1, 0), (2, 1), True),
    ((2, 4), (2, 3), (0, 2), 1, False),
]


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("case", MAX_POOLS, ids=str)
def test_max_pool(case: tuple[Any, ...], tied: bool) -> None:
    kernel, stride, padding, dilation, ceil = case
    x = image(2, 3, 9, 8)
    x = x.round() if tied else x  # a few values only: most windows hold their maximum more than once
    check(layer(nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)), x)


def test_a_tie_goes_to_the_first_maximum() -> None:
    module = randomise(layer(nn.MaxPool2d(3, 2, 1)))
    x, labels = torch.zeros(1, 1, 6, 6, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    graph = trace_value_and_gradient(module, energy, (x, labels))
    want = EagerGradientEngine(module, energy).run(x, labels)[1]
    assert torch.equal(graph(x, labels)[1], want)
    assert int((want != 0).sum()) > 1


def test_max_pool_after_relu_ties_at_zero() -> None:
    check(layer(nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1))), image(2, 3, 8, 8))


def test_max_pool_of_very_negative_values_ignores_the_padding() -> None:
    check(layer(nn.MaxPool2d(3, 2, 1)), image(2, 2, 6, 6) - 1e6)


@pytest.mark.parametrize("count", [True, False], ids=["with padding", "without padding"])
@pytest.mark.parametrize("ceil", [True, False], ids=["ceil", "floor"])
@pytest.mark.parametrize("divisor", [None, 1, 5])
@pytest.mark.parametrize("shape", [(2, 2, 0), (3, 2, 1), (3, 1, 1), ((3, 2), (2, 3), (1, 0))], ids=str)
def test_average_pool(shape: tuple[Any, ...], divisor: int | None, ceil: bool, count: bool) -> None:
    kernel, stride, padding = shape
    module = nn.AvgPool2d(kernel, stride, padding, ceil, count, divisor)
    check(layer(module), image(2, 3, 8, 9))


def test_average_pool_without_a_stride() -> None:
    check(Call(lambda x: F.avg_pool2d(x, 3)), image(2, 3, 7, 8))


@pytest.mark.parametrize("size", [1, (1, 1), 2, (3, 5), (4, 1), (7, 6), (9, 11)], ids=str)
def test_adaptive_average_pool(size: Any) -> None:
    check(layer(nn.AdaptiveAvgPool2d(size)), image(2, 3, 7, 6))


def test_global_maximum_and_mean() -> None:
    check(Call(lambda x: torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)), image(2, 3, 5, 4))
