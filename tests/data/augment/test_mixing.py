"""Mixup and cutmix against their papers' formulas, written down pair by pair in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment.mixing import Mixing, Pairs, beta, mixed_logits, pairs, partner
from prism_fast.data.batch import Batch
from prism_fast.errors import InputError
from prism_fast.views.counter import Stream, uniforms
from tests.data.augment.pictures import batch

N, H, W = 48, 20, 24


def mixed(**config: float) -> tuple[Batch, Batch, Pairs]:
    """A batch, the same one mixed, and what its pairs drew."""
    settings, given = AugmentConfig(**config), batch(N)
    part = Mixing(settings, 9)
    drawn = part.draw(given.positions, H, W)
    found = part.targets(given, drawn)
    images = part.apply(given.images, drawn)
    draws = uniforms(9, Stream.MIX, given.positions[::2], 0, 5)
    return (
        given,
        Batch(images, found.labels, found.logits, found.positions, found.other_labels, found.share),
        pairs(draws, settings, H, W),
    )


@pytest.mark.parametrize("config", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
@pytest.mark.parametrize("probability", [0.6, 1.0])
def test_pictures_labels_and_shares(config: dict[str, float], probability: float) -> None:
    given, found, drawn = mixed(**config, mix_probability=probability)
    assert found.share is not None
    assert found.other_labels is not None
    kinds = set()
    for i in range(N):
        j, k = i ^ 1, i // 2
        own, other = given.images[i].double(), given.images[j].double()
        top, bottom, left, right = drawn.boxes[k]
        wanted = own.clone()
        if drawn.cut[k]:
            wanted[:, top:bottom, left:right] = other[:, top:bottom, left:right]
            assert torch.equal(found.images[i].double(), wanted)
            outside = torch.ones(H, W)
            outside[top:bottom, left:right] = 0
            assert float(found.share[i]) == pytest.approx(float(outside.mean()), abs=1e-7)
        else:
            wanted = drawn.share[k] * own + (1 - drawn.share[k]) * other
            torch.testing.assert_close(found.images[i].double(), wanted, rtol=0, atol=2e-6)
            assert float(found.share[i]) == pytest.approx(drawn.share[k])
        kinds.add("cut" if drawn.cut[k] else "alone" if drawn.share[k] == 1 else "mix")
        assert (found.labels[i], found.other_labels[i]) == (given.labels[i], given.labels[j])
    expected = {"alone": probability < 1, "mix": "mixup" in config, "cut": "cutmix" in config}
    assert kinds == {name for name, there in expected.items() if there}
    assert found.images.is_contiguous(memory_format=torch.channels_last)


def test_logits_are_of_the_mixed_distribution() -> None:
    given, found, _ = mixed(mixup=0.8, mix_probability=0.6)
    assert found.share is not None
    share = found.share.double()[:, None]
    own = given.logits.double().softmax(1)
    wanted = share * own + (1 - share) * own[torch.arange(N) ^ 1]
    torch.testing.assert_close(found.logits.double().exp(), torch.where(share < 1, wanted, given.logits.double().exp()))
    untouched = found.share == 1
    assert 0 < untouched.sum() < N
    assert torch.equal(found.logits[untouched], given.logits[untouched])


def test_logits_stay_numbers_at_the_ends() -> None:
    own, other = torch.tensor([[0.0, 200.0]]).expand(4, 2), torch.tensor([[200.0, 0.0]]).expand(4, 2)
    found = mixed_logits(own, other, torch.tensor([0.0, 1e-30, 1 - 1e-7, 1.0]))
    assert found.isfinite().all()
    assert torch.equal(found[0], other[0].log_softmax(0))
    assert torch.equal(found[3], own[3])


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 3.0])
def test_shares_are_beta(alpha: float) -> None:
    draws = uniforms(1, Stream.MIX, np.arange(4000), 0, 1)[:, 0]
    np.testing.assert_allclose(beta(alpha, draws), stats.beta.ppf(draws, alpha, alpha), rtol=1e-9, atol=1e-300)
    drawn = pairs(uniforms(1, Stream.MIX, np.arange(4000), 0, 5), AugmentConfig(mixup=alpha), H, W)
    assert stats.kstest(drawn.share, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_how_often_and_which() -> None:
    settings = AugmentConfig(mixup=0.8, cutmix=1.0, mix_probability=0.7)
    drawn = pairs(uniforms(1, Stream.MIX, np.arange(20_000), 0, 5), settings, 400, 400)
    assert abs(drawn.cut.mean() - 0.35) < 0.015
    assert abs(((drawn.share < 1) & ~drawn.cut).mean() - 0.35) < 0.015


def test_boxes_have_the_drawn_area_and_lie_anywhere() -> None:
    draws = uniforms(1, Stream.MIX, np.arange(20_000), 0, 5)
    drawn = pairs(draws, AugmentConfig(cutmix=1.0), 400, 400)
    top, bottom, left, right = drawn.boxes.T
    wanted = np.sqrt(1 - draws[:, 2]) * 400
    uncut = (top > 0) & (bottom < 400)
    assert uncut.mean() > 0.3
    assert (np.abs(bottom - top - wanted)[uncut] <= 2).all()
    assert (bottom - top <= wanted + 1e-9).all()
    assert abs(((left + right) / 2).mean() - 200) < 3
    np.testing.assert_allclose(drawn.share, 1 - (bottom - top) * (right - left) / 400**2)


def test_an_odd_batch_is_refused() -> None:
    with pytest.raises(InputError, match="batch of 3; give every rank a multiple of 2"):
        Mixing(AugmentConfig(mixup=1.0), 0).draw(np.arange(3), H, W)
    with pytest.raises(InputError, match="batch of 6; give every rank a multiple of 4"):
        Mixing(AugmentConfig(mixup=1.0), 0, 2).draw(np.arange(6), H, W)


def test_partners() -> None:
    assert partner(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]
    assert partner(torch.arange(12), 3).tolist() == [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]


@pytest.mark.parametrize("config", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_views_of_a_picture_are_mixed_with_another_picture(config: dict[str, float]) -> None:
    """The same rows put so that partners are neighbours, with the draws of the same places, become the same."""
    given, settings = batch(N), AugmentConfig(**config)
    side_by_side = torch.arange(N).view(-1, 2, 3).transpose(1, 2).flatten()
    order = side_by_side.numpy()
    moved = Batch(given.images[side_by_side], given.labels[side_by_side], given.logits[side_by_side], order)
    found, wanted = (whole(Mixing(settings, 9, apart), one) for apart, one in ((3, given), (1, moved)))
    assert torch.equal(found.images[side_by_side], wanted.images)
    assert not torch.equal(found.images, given.images)
    assert torch.equal(found.logits[side_by_side], wanted.logits)
    assert found.share is not None
    assert wanted.share is not None
    assert torch.equal(found.share[side_by_side], wanted.share)
    assert found.other_labels is not None
    assert torch.equal(found.other_labels, given.labels.view(-1, 2, 3).flip(1).flatten())


def whole(part: Mixing, given: Batch) -> Batch:
    drawn = part.draw(given.positions, H, W)
    return replace(part.targets(given, drawn), images=part.apply(given.images, drawn))
