"""The whole stage: what it keeps, and that a sample's draws are its own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment import Augment
from prism_fast.data.batch import Batch
from prism_fast.errors import InputError
from tests.data.augment.pictures import CPU, batch
from tests.data.toy import MEAN, STD

COLOURS: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
MIXING: dict[str, Any] = {"mixup": 0.8, "cutmix": 1.0, "mix_probability": 0.8}
ALL: dict[str, Any] = {**COLOURS, **MIXING, "rand_augment": 2, "erasing": 0.5}
EACH = [{"hue": 0.1}, {"rand_augment": 2}, {"erasing": 0.5}, {"mixup": 0.8}, {"cutmix": 1.0}, ALL]


def made(seed: int = 3, **config: Any) -> Augment:
    return Augment(AugmentConfig(**config), seed, MEAN, STD, CPU)


def rows(given: Batch, part: slice) -> Batch:
    return Batch(given.images[part], given.labels[part], given.logits[part], given.positions[part])


def test_nothing_to_do_gives_back_the_batch() -> None:
    given = batch(4)
    assert made()(given) is given
    assert made(mixup=0.8, mix_probability=0.0)(given) is given


@pytest.mark.parametrize("config", EACH)
def test_a_sample_is_the_same_in_every_batch(config: dict[str, Any]) -> None:
    whole = batch(24)
    found = made(**config)(whole)
    for cuts in ([0, 2, 8, 24], [0, 16, 24]):
        parts = [made(**config)(rows(whole, slice(a, b))) for a, b in pairwise(cuts)]
        for name in ("images", "labels", "logits", "other_labels", "share"):
            if getattr(found, name) is not None:
                together = torch.cat([getattr(part, name) for part in parts])
                torch.testing.assert_close(together, getattr(found, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", EACH)
def test_seed_and_place_decide(config: dict[str, Any]) -> None:
    given = batch(24)
    found = made(**config)(given).images
    assert torch.equal(found, made(**config)(given).images)
    moved = replace(given, positions=given.positions + 1000)
    for other in (made(4, **config)(given).images, made(**config)(moved).images):
        assert (found != other).flatten(1).any(1).sum() > 8


@pytest.mark.parametrize("config", EACH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_goes_in_comes_out_and_stays_as_it_was(config: dict[str, Any], dtype: torch.dtype) -> None:
    given = batch(12, dtype=dtype)
    kept = given.images.clone()
    found = made(**config)(given)
    assert torch.equal(given.images, kept)
    assert (found.images.dtype, found.images.shape) == (dtype, kept.shape)
    assert found.images.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(found.images, kept)
    assert not found.images.requires_grad
    assert found.images.isfinite().all()
    assert found.labels is given.labels
    assert np.array_equal(found.positions, given.positions)
    mixes = AugmentConfig(**config).mixes
    assert (found.share is not None, found.other_labels is not None) == (mixes, mixes)
    if not mixes:
        assert found.logits is given.logits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_costs_half_precision(dtype: torch.dtype) -> None:
    config = {**COLOURS, "mixup": 0.8}
    given = batch(12, dtype=dtype)
    exact = made(**config)(replace(given, images=given.images.float())).images
    found = made(**config)(given).images
    assert (found.float() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


def test_colours_stay_pictures() -> None:
    found = made(**COLOURS, rand_augment=2)(batch(24)).images
    pixels = found * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6


def test_order_is_colours_then_erasing_then_mixing() -> None:
    given = batch(12)
    apart = made(**MIXING)(made(erasing=0.5)(made(**COLOURS, rand_augment=2)(given)))
    torch.testing.assert_close(made(**ALL)(given).images, apart.images, rtol=0, atol=1e-5)


def test_views_reach_the_mixing() -> None:
    found = Augment(AugmentConfig(mixup=1.0), 3, MEAN, STD, CPU, views=3)(batch(12))
    assert found.other_labels is not None
    assert found.other_labels.tolist() == [i % 5 for i in (3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8)]


def test_an_odd_batch_is_refused_only_where_pairs_are_mixed() -> None:
    assert len(made(**COLOURS, erasing=1.0)(batch(3)).images) == 3
    with pytest.raises(InputError, match="multiple of 2"):
        made(cutmix=1.0)(batch(3))
