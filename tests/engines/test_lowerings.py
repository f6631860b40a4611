"""Every lowering against its aten operator in float64: value and gradient of small modules, by autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.errors import UnsupportedOpError
from prism_engines.lowerings import LOWERINGS
from prism_engines.lowerings.convolution import convolution_backward
from prism_engines.primitives import PRIMITIVES
from prism_engines.vjp import trace_forward, trace_value_and_gradient
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


# --- convolutions ------------------------------------------------------------------------------------------------

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
def test_padding_with_pixels_of_the_image_is_refused(mode: str) -> None:
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


# --- pooling -----------------------------------------------------------------------------------------------------

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


# --- norms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(groups: int, affine: bool) -> None:
    check(layer(nn.GroupNorm(groups, 6, affine=affine)), image(2, 6, 5, 4))


def test_group_norm_of_rows() -> None:
    check(layer(nn.GroupNorm(2, 6)), image(2, 6, 7))


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(6), nn.LayerNorm((5, 6)), nn.LayerNorm(6, elementwise_affine=False), nn.LayerNorm(6, bias=False)],
    ids=str,
)
def test_layer_norm(norm: nn.Module) -> None:
    check(layer(norm), image(2, 3, 5, 6))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(affine: bool) -> None:
    check(layer(nn.BatchNorm2d(4, affine=affine)), image(2, 4, 5, 3))


def test_batch_norm_of_features() -> None:
    check(layer(nn.BatchNorm1d(4)), image(3, 4))
    check(layer(nn.BatchNorm1d(4)), image(3, 4, 6))


def test_root_mean_square_norm_written_out() -> None:
    check(Call(lambda x: x * ((x * x).mean(-1, keepdim=True) + 1e-6).rsqrt()), image(2, 3, 6))


# --- elementwise -------------------------------------------------------------------------------------------------

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
    check(layer(nn.Sequential(nn.Conv2d(2, 3, 1), inplace(inplace=True))), image(2, 2, 4, 4), 1e-7)  # type: ignore[call-arg]


# --- resizing and moves of data ----------------------------------------------------------------------------------

SIZES: list[dict[str, Any]] = [
    {"size": (12, 10)},
    {"size": (9, 13)},
    {"size": (3, 4)},
    {"size": (6, 5)},
    {"scale_factor": 2.0},
    {"scale_factor": 1.7},
    {"scale_factor": (2.4, 1.3)},
    {"scale_factor": 0.6},
    {"scale_factor": 1.7, "recompute_scale_factor": True},
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nearest_resize(size: dict[str, Any]) -> None:
    check(Call(lambda x: F.interpolate(x, mode="nearest", **size)), image(2, 3, 6, 5))


@pytest.mark.parametrize("scale", [2.3, 3.3, 1.3])
def test_nearest_resize_by_a_scale_that_is_not_the_ratio_of_the_sizes(scale: float) -> None:
    check(Call(lambda x: F.interpolate(x, mode="nearest", scale_factor=scale)), image(2, 2, 3, 3))  # 6, 9, 3


@pytest.mark.parametrize("align", [True, False], ids=["corners", "centres"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bilinear_resize(size: dict[str, Any], align: bool) -> None:
    check(Call(lambda x: F.interpolate(x, mode="bilinear", align_corners=align, **size)), image(2, 3, 6, 5))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_antialiased_resize(size: dict[str, Any]) -> None:
    check(
        Call(lambda x: F.interpolate(x, mode="bilinear", align_corners=False, antialias=True, **size)),
        image(2, 3, 6, 5),
    )


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), (2, 8, 3, 5)),
    "pixel shuffle by three": (lambda x: F.pixel_shuffle(x, 3), (1, 9, 2, 3)),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (2, 3, 4, 6)),
    "roll": (lambda x: x.roll(2, 2), (2, 3, 5, 4)),
    "roll of two axes": (lambda x: x.roll((-1, 7), (2, -1)), (2, 3, 5, 4)),
    "roll of all": (lambda x: x.roll(5), (2, 3, 4)),
    "slice": (lambda x: x[:, 1:3, :, -2:], (2, 4, 3, 5)),
    "slice with steps": (lambda x: x[:, ::2, 1::3, 4::5], (2, 5, 8, 7)),
    "slice with a step that ends early": (lambda x: x[:, :, 1:6:2], (2, 3, 9)),
    "slice beyond the end": (lambda x: x[:, :, 2:99], (2, 3, 5)),
    "slice from before the beginning": (lambda x: x[:, :, -9:3], (2, 3, 5)),
    "select": (lambda x: x[:, 1] * x[:, -1], (2, 3, 4)),
    "select of the last axis": (lambda x: x.select(-1, -2), (2, 3, 4)),
    "class token": (lambda x: x[:, 0], (2, 5, 6)),
    "unbind": (lambda x: x.unbind(1)[0] * x.unbind(1)[2], (2, 3, 4)),
    "chunk": (lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), (2, 6, 3)),
    "split": (lambda x: torch.cat([a * (i + 1) for i, a in enumerate(x.split([1, 3, 2], 1))], 1), (2, 6, 3)),
    "cat": (lambda x: torch.cat([x, x * x], 1), (2, 3, 4)),
    "stack": (lambda x: torch.stack([x, -x], 1), (2, 3, 4)),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3)), (2, 3, 4, 5)),
    "crop": (lambda x: F.pad(x, (-1, 0, 1, -1)), (2, 3, 4, 5)),
    "windows": (lambda x: x.view(2, 2, 3, 2, 2, 5).permute(0, 1, 3, 2, 4, 5).reshape(-1, 6, 5), (2, 6, 4, 5)),
    "expand": (lambda x: x[:, :, None] * x[:, None], (2, 3, 4)),
    "flip": (lambda x: x.flip(2) * x, (2, 3, 4)),
    "in place": (lambda x: (x * 2).add_(1).mul_(x), (2, 3)),
    "fill": (lambda x: x * torch.zeros_like(x).fill_(2.5), (2, 3)),
}


@pytest.mark.parametrize("name", MOVES)
def test_move(name: str) -> None:
    f, shape = MOVES[name]
    module = Call(lambda x: f(x).reshape(len(x), -1))
    check(module, image(*shape))


# --- products and attention --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (2, 2, 3, 5)], ids=str)
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    check(layer(nn.Linear(5, 4, bias)), image(*shape))


def test_matrix_products() -> None:
    check(Call(lambda x: x @ x.mT), image(2, 3, 4, 5))
    check(Call(lambda x: torch.einsum("nij,nkj->nik", x, x)), image(2, 3, 4))


class Attention(nn.Module):
    """Two heads, written as timm does."""

    def __init__(self, causal: bool = False, masked: bool = False) -> None:
        super().__init__()
        self.qkv, self.causal, self.masked = nn.Linear(8, 24), causal, masked

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mask = torch.arange(length * length, dtype=x.dtype).view(length, length) / length if self.masked else None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return y.transpose(1, 2).reshape(n, length, 8)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"masked": True}], ids=str)
def test_attention(options: dict[str, bool]) -> None:
    check(layer(Attention(**options)), image(2, 5, 8))


def test_attention_written_out() -> None:
    check(Call(lambda x: (x @ x.mT / math.sqrt(8)).softmax(-1) @ x), image(2, 5, 8))


class SqueezeExcite(nn.Module):
    """Channels scaled by what their means say."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.reduce, self.expand, self.gate = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid()], ids=str)
def test_squeeze_excite(gate: nn.Module) -> None:
    check(layer(SqueezeExcite(gate)), image(2, 6, 5, 4), 1e-7 if isinstance(gate, nn.Hardsigmoid) else TOLERANCE)


def test_every_lowering_was_for_an_operator_of_aten() -> None:
    assert all(isinstance(op, torch._ops.OpOverload) and op.namespace == "aten" for op in LOWERINGS)


# --- low precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    [nn.GroupNorm(2, 4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 2, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1)],
    ids=str,
)
def test_bfloat16_stays_bfloat16(module: nn.Module) -> None:
    module = randomise(layer(module)).bfloat16()
    x, labels = image(2, 4, 6, 6).bfloat16(), torch.zeros(2, dtype=torch.int64)
    got = trace_value_and_gradient(module, energy, (x, labels))(x, labels)
    want = EagerGradientEngine(module, energy).run(x, labels)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype == torch.bfloat16
        assert float((a - b).float().norm() / b.float().norm()) < 0.03
