from __future__ import annotations

import pytest
from torch import nn

from tests.engines.gradients import Call, check, image, layer


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
