"""Colours by a factor per picture against torchvision's functions of one picture and one number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment import colour
from prism_fast.data.augment.jitter import Jitter
from tests.data.augment.pictures import pictures

N = 24
FACTORS = torch.linspace(0, 2, N)
TURNS = torch.linspace(-0.5, 0.5, N)
JITTER = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.6, "hue": 0.2}

Function = Callable[[Tensor, Tensor], Tensor]


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (colour.brightness, functional.adjust_brightness, FACTORS),
        (colour.contrast, functional.adjust_contrast, FACTORS),
        (colour.saturation, functional.adjust_saturation, FACTORS),
        (colour.hue, functional.adjust_hue, TURNS),
    ],
)
def test_each_picture_is_torchvisions(ours: Function, theirs: Callable[..., Tensor], factors: Tensor) -> None:
    given = pictures(N)
    found = ours(given.clone(), factors.view(-1, 1, 1, 1))
    wanted = torch.stack([theirs(one, float(factor)) for one, factor in zip(given, factors, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=0, atol=3e-6)
    assert (found[2:] - given[2:]).abs().amax((1, 2, 3)).gt(0.01).sum() > N // 2


def test_hue_leaves_grey_black_and_white_alone() -> None:
    levels = torch.tensor([0, 1e-30, 0.5, 1.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2).clone()
    assert torch.equal(colour.hue(levels.clone(), torch.full((4, 1, 1, 1), 0.3)), levels)


def test_jitter_is_torchvisions_four_in_order_with_its_factors() -> None:
    jitter = Jitter(AugmentConfig(**JITTER), 7)
    given = pictures(N)
    drawn = jitter.draw(torch.arange(N).numpy(), 20, 24)
    found = jitter.apply(given.clone(), drawn)
    steps = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    for k, one in enumerate(given):
        wanted = one
        for step, factors in zip(steps, drawn.tensors, strict=True):
            wanted = step(wanted, float(factors[k]))
        torch.testing.assert_close(found[k], wanted, rtol=0, atol=1e-5)


def test_factors_fill_their_ranges() -> None:
    drawn = Jitter(AugmentConfig(**JITTER), 7).draw(torch.arange(20_000).numpy(), 8, 8)
    for factors, center, reach in zip(drawn.tensors, (1, 1, 1, 0), JITTER.values(), strict=True):
        shifted = (factors.flatten() - center) / reach
        assert -1 <= shifted.min() < -0.99 < 0.99 < shifted.max() <= 1
        assert abs(shifted.mean()) < 0.02
        assert abs(shifted.square().mean() - 1 / 3) < 0.02
    assert torch.corrcoef(torch.stack([x.flatten() for x in drawn.tensors])).fill_diagonal_(0).abs().max() < 0.03


def test_one_that_is_off_changes_no_other_draw() -> None:
    places = torch.arange(10).numpy()
    every = Jitter(AugmentConfig(**JITTER), 7).draw(places, 8, 8).tensors
    some = Jitter(AugmentConfig(contrast=0.3, hue=0.2), 7).draw(places, 8, 8).tensors
    assert torch.equal(torch.stack(some), torch.stack([every[1], every[3]]))
