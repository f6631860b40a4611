from __future__ import annotations

from typing import Any

import pytest
import torch.nn.functional as F

from tests.engines.gradients import Call, check, image

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
