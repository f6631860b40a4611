"""What crosses the families of lowerings: products, attention, squeeze and excite, low precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.lowerings import LOWERINGS
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn

from tests.engines.gradients import TOLERANCE, Call, check, energy, image, layer, randomise


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
        gate: Tensor = self.gate(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * gate


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid()], ids=str)
def test_squeeze_excite(gate: nn.Module) -> None:
    check(layer(SqueezeExcite(gate)), image(2, 6, 5, 4), 1e-7 if isinstance(gate, nn.Hardsigmoid) else TOLERANCE)


def test_every_lowering_was_for_an_operator_of_aten() -> None:
    assert all(isinstance(op, torch._ops.OpOverload) and op.namespace == "aten" for op in LOWERINGS)


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
