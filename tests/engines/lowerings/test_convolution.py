from __future__ import annotations

from typing import Any, Literal

import pytest
from prism_engines.errors import UnsupportedOpError
from prism_engines.lowerings.convolution import convolution_backward
from torch import nn

from tests.engines.gradients import check, image, layer, randomise
from tests.engines.tracing import trace_forward

CONVOLUTIONS = [
    # kernel, stride, padding, dilation, groups, bias, height, width
    (1, 1, 0, 1, 1, True, 5, 7),
    (1, 2, 0, 1, 1, False, 7, 8),
    (2, 2, 0, 1, 1, True, 8, 9),
    (3, 1, 1, 1, 1, True, 6, 5),
    (3, 1, 0, 1, 1, False, 6, 5),
    (3, 1, 4, 1, 1, True, 4, 5),
    (3, 2, 1, 1, 1, True, 8, 8),
    (3, 2, 1, 1, 1, True, 7, 9),
    (3, 2, 0, 1, 1, False, 8, 7),
    (3, 2, 1, 1, 4, True, 8, 7),
    (3, 2, 1, 1, 2, False, 9, 8),
    (3, 1, 1, 1, 4, True, 6, 7),
    (3, 1, 2, 2, 1, True, 8, 7),
    (3, 2, 2, 2, 1, True, 9, 8),
    (3, 3, 1, 1, 1, True, 10, 8),
    (3, 3, 0, 2, 2, True, 11, 12),
    (4, 4, 0, 1, 1, True, 8, 10),
    (4, 2, 1, 1, 1, True, 8, 6),
    (5, 2, 2, 1, 1, True, 9, 8),
    (5, 2, 2, 1, 4, False, 8, 8),
    (7, 2, 3, 1, 1, False, 12, 11),
    (7, 1, 3, 1, 4, True, 8, 8),
    ((3, 1), 1, (1, 0), 1, 1, True, 6, 5),
    ((1, 5), (1, 2), (0, 2), 1, 1, True, 6, 8),
    ((3, 2), (2, 1), (1, 0), (1, 2), 2, True, 8, 7),
    ((2, 3), 2, (0, 1), 1, 1, True, 7, 8),
    ((5, 3), (2, 2), (1, 2), 1, 1, True, 9, 7),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case: tuple[Any, ...]) -> None:
    kernel, stride, padding, dilation, groups, bias, height, width = case
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias)
    check(layer(conv), image(2, 4, height, width))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_convolution_with_named_padding(padding: str) -> None:
    check(layer(nn.Conv2d(2, 3, (3, 5), padding=padding)), image(2, 2, 6, 6))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_with_pixels_of_the_image_is_refused(mode: Literal["reflect", "replicate", "circular"]) -> None:
    with pytest.raises(UnsupportedOpError, match=r"operator aten\.\w+\.default of layer \(Conv2d\)"):
        check(layer(nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode)), image(2, 2, 5, 5))


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution(multiplier: int, stride: int) -> None:
    check(layer(nn.Conv2d(4, 4 * multiplier, 3, stride, 1, groups=4)), image(2, 4, 7, 6))


TRANSPOSED = [
    # kernel, stride, padding, output_padding, groups, bias, dilation
    (2, 2, 0, 0, 1, True, 1),
    (3, 1, 1, 0, 1, True, 1),
    (3, 1, 0, 0, 2, True, 1),
    (3, 2, 1, 1, 1, True, 1),
    (3, 2, 1, 0, 1, False, 1),
    (3, 2, 0, 0, 1, True, 1),
    (3, 2, 0, 1, 1, True, 1),
    (4, 2, 1, 0, 1, True, 1),
    (4, 2, 1, 0, 2, False, 1),
    (4, 4, 0, 0, 1, True, 1),
    (5, 3, 2, 1, 1, True, 1),
    (3, 2, 2, 1, 2, True, 2),
    ((3, 4), (2, 1), (1, 0), (1, 0), 1, True, 1),
]


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_convolution(case: tuple[Any, ...]) -> None:
    kernel, stride, padding, output_padding, groups, bias, dilation = case
    conv = nn.ConvTranspose2d(4, 6, kernel, stride, padding, output_padding, groups, bias, dilation)
    check(layer(conv), image(2, 4, 5, 4))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(4, 6, 3, 1, 1),
        nn.Conv1d(4, 6, 3, 2, 1),
        nn.Conv1d(4, 4, 5, 2, 2, groups=4),
        nn.Conv1d(4, 4, 3, 3, 2, dilation=2),
        nn.ConvTranspose1d(4, 6, 4, 2, 1),
        nn.ConvTranspose1d(4, 6, 3, 1, 1, groups=2),
    ],
    ids=str,
)
def test_convolution_of_one_axis(conv: nn.Module) -> None:
    check(layer(conv), image(2, 4, 9))


def test_convolutions_of_three_axes_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedOpError, match=r"convolution_backward.*layer \(Conv3d\)"):
        check(layer(nn.Conv3d(2, 2, 3)), image(1, 2, 4, 4, 4))
    with pytest.raises(UnsupportedOpError, match="convolution"):
        trace_forward(randomise(layer(nn.ConvTranspose3d(2, 2, 3))), (image(1, 2, 4, 4, 4),))


def test_a_derivative_by_the_weights_is_refused() -> None:
    x, weight = image(1, 2, 4, 4), image(2, 2, 3, 3)
    with pytest.raises(UnsupportedOpError, match="weights are constants"):
        convolution_backward(x, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False])
