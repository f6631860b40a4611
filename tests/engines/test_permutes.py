"""Excursions to another order of axes disappear where nothing inside depends on it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers.models.normalization import RMSNorm
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn

from tests.engines.gradients import assert_same, energy, image, randomise
from tests.engines.test_folding import counts
from tests.engines.tracing import trace_forward

PICTURE = image(2, 3, 6, 6)


class ChannelNorm(nn.Module):
    """A root mean square norm over channels between two convolutions, as in AutoencoderDC."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), RMSNorm(8, 1e-5, True, True)
        self.last = nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.first(x)
        h = self.norm(h.movedim(1, -1)).movedim(-1, 1) + h
        y: Tensor = self.last(h)
        return y.mean((2, 3))


class Excursion(nn.Module):
    """``body`` on channels-last axes."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_norm_over_channels_needs_no_permutes_in_either_direction() -> None:
    module = randomise(ChannelNorm())
    inputs = (PICTURE, torch.tensor([0, 1]))
    graph = trace_value_and_gradient(module, energy, inputs)
    assert counts(graph)["permute"] == 0
    for found, wanted in zip(graph(*inputs), EagerGradientEngine(module, energy).run(*inputs), strict=True):
        assert_same(found, wanted)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: (
            x * torch.arange(1.0, 4.0, dtype=torch.float64) + torch.arange(6.0, dtype=torch.float64).view(1, 6, 1)
        ),
        lambda x: x / (x.pow(2).mean(-1, keepdim=True) + 1).rsqrt(),
        lambda x: x - x.sum((1, 2), keepdim=True).expand(-1, 6, 6, -1),
        lambda x: x * 2 - x.mean((0, -2), keepdim=True),
    ],
    ids=["constants", "norm", "expand", "axes"],
)
def test_elementwise_work_and_sums_move_to_the_old_axes(body: Callable[[Tensor], Tensor]) -> None:
    module = Excursion(body).eval()
    graph = trace_forward(module, (PICTURE,))
    assert counts(graph)["permute"] == 0
    assert_same(graph(PICTURE)[0], module(PICTURE))


@pytest.mark.parametrize(
    ("body", "permutes"),
    [
        (lambda x: x @ torch.ones(3, 3, dtype=torch.float64), 2),
        (lambda x: x.mean(-1).unsqueeze(-1).expand(-1, -1, -1, 3), 2),
        (lambda x: (x * 2).reshape(2, 6, 6, 3) + 1, 2),
        (lambda x: (x * 2).permute(0, 2, 1, 3), 3),
    ],
    ids=["product", "lost axis", "reshape", "other order"],
)
def test_what_depends_on_the_order_keeps_it(body: Callable[[Tensor], Tensor], permutes: int) -> None:
    module = Excursion(body).eval()
    graph = trace_forward(module, (PICTURE,))
    assert counts(graph)["permute"] >= permutes - 1
    assert_same(graph(PICTURE)[0], module(PICTURE))


def test_a_permuted_output_stays_permuted() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x.permute(0, 2, 3, 1) * 2
            return y, y.permute(0, 3, 1, 2)

    graph = trace_forward(Both().eval(), (PICTURE,))
    for found, wanted in zip(graph(PICTURE), Both()(PICTURE), strict=True):
        assert_same(found, wanted)
