"""Guidance and prediction conversion against their papers' formulas in float64."""

from __future__ import annotations

import pytest
import torch
from prism_kernels import KernelInputError, guided_combine
from prism_kernels.testing import assert_close

from tests.kernels.cases import DTYPES, combine_oracle, random

KINDS = ("epsilon", "v_prediction", "sample")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 4, 13, 11), (0, 4, 8, 8)], ids=str)
def test_matches_the_float64_oracle(shape: tuple[int, ...], kind: str, dtype: torch.dtype) -> None:
    z, prediction = random(*shape, dtype=dtype), random(2 * shape[0], *shape[1:], dtype=dtype, seed=1)
    got = guided_combine(z, prediction, 3.0, 0.6, 0.8, kind)  # type: ignore[arg-type]
    expected, squares = combine_oracle(z, prediction, 3.0, 0.6, 0.8, kind)
    assert got.denoised.dtype == dtype
    assert got.correction_squares.dtype == torch.float32
    assert_close("guided_combine", got.denoised, expected, scale=10.0)
    assert_close("guided_combine", got.correction_squares, squares, reduction=z[:1].numel())


def test_non_contiguous_inputs_are_read_by_their_indices() -> None:
    z, prediction = random(2, 4, 5, 7), random(4, 4, 5, 7, seed=1)
    expected = guided_combine(z, prediction, 3.0, 0.6, 0.8, "epsilon")
    last = torch.channels_last
    got = guided_combine(z.to(memory_format=last), prediction.to(memory_format=last), 3.0, 0.6, 0.8, "epsilon")
    torch.testing.assert_close(got.denoised, expected.denoised, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.correction_squares, expected.correction_squares, rtol=1e-5, atol=0)


def test_bad_input() -> None:
    z, prediction = random(2, 4, 5, 7), random(4, 4, 5, 7)
    with pytest.raises(KernelInputError, match=r"\(3, 4, 5, 7\).*unconditional"):
        guided_combine(z, prediction[1:], 3.0, 0.6, 0.8, "epsilon")
    with pytest.raises(KernelInputError, match="int64"):
        guided_combine(z, prediction.long(), 3.0, 0.6, 0.8, "epsilon")
    with pytest.raises(KernelInputError, match="alpha 0"):
        guided_combine(z, prediction, 3.0, 0.0, 1.0, "epsilon")
    with pytest.raises(KernelInputError, match="'velocity'"):
        guided_combine(z, prediction, 3.0, 0.6, 0.8, "velocity")  # type: ignore[arg-type]
