"""GroupNorm and SiLU, forward and backward, in both orders of memory, against a float64 oracle."""

from __future__ import annotations

import pytest
import torch
from prism_kernels import KernelInputError, group_norm_silu
from prism_kernels.testing import assert_close
from torch import Tensor

from tests.kernels.cases import DTYPES, random

ORDERS = (torch.contiguous_format, torch.channels_last)
# One number; odd sizes; groups of 3, 4 and 16 channels; the last two do not fit a tile.
CASES = [
    ((1, 1, 1, 1), 1),
    ((2, 6, 5, 7), 2),
    ((3, 16, 4, 4), 4),
    ((1, 64, 8, 8), 4),
    ((1, 6, 97, 89), 2),
    ((2, 16, 64, 64), 2),
]


def _inputs(shape: tuple[int, ...], dtype: torch.dtype, order: torch.memory_format) -> tuple[Tensor, ...]:
    x = (random(*shape) * 2 + 1).to(dtype).contiguous(memory_format=order)
    weight, bias = random(shape[1], dtype=dtype, seed=1), random(shape[1], dtype=dtype, seed=2)
    return x, weight, bias, random(*shape, dtype=dtype, seed=3)


def _oracle(x: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The formula by hand, its derivative by autograd."""
    leaf = x.detach().double().requires_grad_()
    grouped = leaf.reshape(len(x), groups, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    h = (centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()).view(x.shape)
    u = weight.double().view(-1, 1, 1) * h + bias.double().view(-1, 1, 1)
    y = u * u.sigmoid()
    (by_x,) = torch.autograd.grad(y, leaf, gradient.double())
    return y.detach(), by_x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize(("shape", "groups"), CASES, ids=str)
def test_matches_the_float64_oracle(
    shape: tuple[int, ...], groups: int, order: torch.memory_format, dtype: torch.dtype, either: str
) -> None:
    x, weight, bias, gradient = _inputs(shape, dtype, order)
    x.requires_grad_()
    y = group_norm_silu(x, weight, bias, groups)
    (by_x,) = torch.autograd.grad(y, x, gradient)
    expected, expected_by_x = _oracle(x, weight, bias, gradient, groups)
    assert y.dtype == by_x.dtype == dtype
    count = x[:1].numel() // groups
    # One element has no deviation: 1/√eps = 1000 times a difference of equal terms.
    scale = 5.0 if count > 1 else 1000.0
    assert_close("group_norm_silu", y.detach(), expected, count, scale)
    assert_close("group_norm_silu", by_x, expected_by_x, count, scale)
    if either == "triton":
        assert y.is_contiguous(memory_format=order)
        assert by_x.is_contiguous(memory_format=order)


def test_a_large_mean_does_not_cancel(either: str) -> None:
    """Mean 1000, deviation 1: squares minus the squared mean would lose every digit; in tiles as in one piece."""
    for side in (16, 100):
        x = random(1, 2, side, side) + 1000
        y = group_norm_silu(x, torch.ones(2), torch.zeros(2), 1)
        expected, _ = _oracle(x, torch.ones(2), torch.zeros(2), x, 1)
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=2e-4)


def test_samples_and_groups_do_not_influence_each_other(either: str) -> None:
    x, weight, bias, _ = _inputs((3, 8, 5, 5), torch.float32, torch.channels_last)
    spoiled = x.clone()
    spoiled[1, 2, 0, 0] = float("nan")
    got, expected = (group_norm_silu(t, weight, bias, 4) for t in (spoiled, x))
    assert torch.equal(got[[0, 2]], expected[[0, 2]])
    assert torch.equal(got[1, 4:], expected[1, 4:])
    assert not got[1, 2:4].isfinite().any()


def test_empty_and_non_contiguous(either: str) -> None:
    x, weight, bias, gradient = _inputs((2, 6, 5, 7), torch.float32, torch.contiguous_format)
    assert group_norm_silu(x[:0], weight, bias, 2).shape == (0, 6, 5, 7)
    expected = group_norm_silu(x, weight, bias, 2)
    strided = torch.stack([x, x], dim=4)[..., 0].transpose(2, 3).contiguous().transpose(2, 3)
    torch.testing.assert_close(group_norm_silu(strided, weight, bias, 2), expected, rtol=1e-6, atol=1e-6)
    leaf = strided.clone().requires_grad_()
    (got,) = torch.autograd.grad(group_norm_silu(leaf, weight, bias, 2), leaf, gradient.transpose(2, 3).mT)
    torch.testing.assert_close(got.double(), _oracle(x, weight, bias, gradient, 2)[1], rtol=1e-5, atol=1e-5)


def test_mixed_dtypes_of_weights(either: str) -> None:
    """Frozen weights may stay in float32 beside half precision activations."""
    x, weight, bias, gradient = _inputs((1, 6, 5, 7), torch.float32, torch.contiguous_format)
    half = x.to(torch.bfloat16)
    got = group_norm_silu(half, weight, bias, 2)
    assert_close("group_norm_silu", got, _oracle(half, weight, bias, gradient, 2)[0], 105, scale=5.0)


def test_bad_input() -> None:
    x, weight, bias, _ = _inputs((2, 6, 5, 7), torch.float32, torch.contiguous_format)
    with pytest.raises(KernelInputError, match=r"\(5,\)"):
        group_norm_silu(x, weight[1:], bias, 2)
    with pytest.raises(KernelInputError, match="6 channels in 4 groups"):
        group_norm_silu(x, weight, bias, 4)
    with pytest.raises(KernelInputError, match="eps 0"):
        group_norm_silu(x, weight, bias, 2, 0.0)
    with pytest.raises(KernelInputError, match="int64"):
        group_norm_silu(x.long(), weight, bias, 2)
    for frozen in (weight, bias):
        frozen.requires_grad_()
        with pytest.raises(KernelInputError, match="requires_grad_\\(False\\)"):
            group_norm_silu(x, weight, bias, 2)
        frozen.requires_grad_(False)
