"""Random erasing: boxes, noise, and what is left alone."""

from __future__ import annotations

import numpy as np
import torch

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment.erasing import Erasing, boxes, noise_sheet
from tests.data.augment.pictures import CPU, pictures

H, W = 40, 48


def made(probability: float = 0.3, seed: int = 5) -> Erasing:
    return Erasing(AugmentConfig(erasing=probability), seed, CPU)


def test_only_boxes_change_and_they_become_noise() -> None:
    given, part = pictures(48, H, W), made()
    drawn = part.draw(np.arange(48), H, W)
    found = part.apply(given.clone(), drawn)
    rows, ends, _ = drawn.tensors
    assert 5 < len(rows) < 30
    changed = torch.zeros(48, 1, H, W, dtype=torch.bool)
    for row, (top, bottom, left, right) in zip(rows.tolist(), ends.tolist(), strict=True):
        changed[row, :, top:bottom, left:right] = True
    assert torch.equal((found != given).all(1, keepdim=True), changed)
    assert torch.equal((found != given).any(1, keepdim=True), changed)
    noise = found.movedim(1, -1)[changed[:, 0]]
    assert noise.mean(0).abs().max() < 0.05
    assert (noise.std(0) - 1).abs().max() < 0.05
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.05


def test_how_often_how_large_and_how_long() -> None:
    drawn = made().draw(np.arange(20_000), 400, 400)
    assert abs(len(drawn.tensors[0]) / 20_000 - 0.3) < 0.01
    assert drawn.counts == (len(drawn.tensors[0]),)
    top, bottom, left, right = drawn.tensors[1].T
    assert min(top.min(), left.min()) == 0
    assert max(bottom.max(), right.max()) == 400
    area = (bottom - top) * (right - left) / 400**2
    assert 0.019 < area.min() < 0.022 < 0.33 < area.max() < 0.335
    assert abs(area.mean() - (0.02 + 1 / 3) / 2) < 0.005
    aspect = ((bottom - top) / (right - left)).log()
    assert abs(aspect.mean()) < 0.03
    assert abs(aspect.abs().max() - np.log(1 / 0.3)) < 0.05
    assert abs(float(((top + bottom) / 2).mean()) - 200) < 3


def test_a_box_longer_than_the_picture_ends_at_its_edge() -> None:
    tall, wide = boxes(np.array([[0.9999, 0.9999, 0.5, 0.5], [0.9999, 0.0, 0.5, 0.5]]), 20, 20)
    assert tall[:2].tolist() == wide[2:].tolist() == [0, 20]
    assert 0 < tall[3] - tall[2] < 20
    smallest = boxes(np.zeros((1, 4)), 2, 2)[0]
    assert smallest.tolist() == [0, 1, 0, 1]


def test_pictures_have_windows_of_their_own() -> None:
    part = made(1.0)
    drawn = part.draw(np.arange(200), H, W)
    assert len({tuple(corner) for corner in drawn.tensors[2].tolist()}) > 180
    assert not np.array_equal(noise_sheet(5, 8, 8), noise_sheet(6, 8, 8))
    assert np.array_equal(noise_sheet(5, 8, 8), noise_sheet(5, 8, 8))


def test_none_to_erase() -> None:
    given, part = pictures(2, H, W), made(1e-9)
    assert torch.equal(part.apply(given.clone(), part.draw(np.arange(2), H, W)), given)
