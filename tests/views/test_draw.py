"""Boxes and flips: what Szegedy et al. say, and a function of (seed, index, turn, size) alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prism_fast.views.counter import Stream, philox, uniforms
from prism_fast.views.draw import ViewRule, draw_views

N = 20_000
RULE = ViewRule(3, (0.3, 0.6), True)


def sizes(height: int, width: int, n: int = N) -> np.ndarray:
    return np.full((n, 2), (height, width), np.int32)


def zeros(n: int = N) -> np.ndarray:
    return np.zeros(n, np.int64)


@pytest.mark.parametrize(
    ("counter", "seed", "wanted"),
    [
        (0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (0xFFFFFFFF, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_philox_gives_the_known_answers(counter: int, seed: int, wanted: tuple[int, ...]) -> None:
    """Random123's kat_vectors."""
    word = np.full(1, counter, np.uint64)
    assert tuple(int(x[0]) for x in philox(seed, word, word, word, word)) == wanted


def test_the_same_bits_as_the_kernels() -> None:
    import torch
    from prism_kernels._reference import philox as kernels

    theirs = kernels(12345678901234, torch.tensor([7, 2**33 + 5]), 9, 3)
    index, block = np.array([[7], [2**33 + 5]], np.uint64), np.arange(3, dtype=np.uint64)[None]
    low, high, word = index & np.uint64(2**32 - 1), index >> np.uint64(32), np.array([[9]], np.uint64)
    ours = np.stack(philox(12345678901234, block, word, low, high), axis=2)
    assert np.array_equal(ours.astype(np.int64), theirs.numpy())


def test_uniforms_are_uniform_and_no_two_draws_are_one() -> None:
    found = uniforms(5, Stream.SAMPLES, np.arange(N), 3, 5)
    assert found.shape == (N, 5)
    assert found.min() >= 0
    assert found.max() < 1
    assert abs(found.mean() - 0.5) < 0.005
    assert np.abs(np.corrcoef(found.T) - np.eye(5)).max() < 0.03
    others = [
        uniforms(5, Stream.SAMPLES, 3, np.arange(N), 5),
        uniforms(5, Stream.SHARDS, np.arange(N), 3, 5),
        uniforms(6, Stream.SAMPLES, np.arange(N), 3, 5),
        uniforms(5 + 2**32, Stream.SAMPLES, np.arange(N), 3, 5),
        uniforms(5, Stream.SAMPLES, np.arange(N) + 2**32, 3, 5),
        uniforms(5, Stream.SAMPLES, np.arange(N), 3 + 2**32, 5),
    ]
    assert len(np.unique(np.concatenate([found, *others]))) == 7 * 5 * N - 5  # (3, 3) is asked for twice
    assert np.array_equal(found[:, :2], uniforms(5, Stream.SAMPLES, np.arange(N), 3, 2))


@pytest.mark.parametrize("counter", [-1, 2**48])
def test_a_counter_that_has_no_room_is_refused(counter: int) -> None:
    with pytest.raises(ValueError, match="counters must be"):
        uniforms(0, Stream.VIEW, [counter], 0, 1)


def test_boxes_are_inside_and_as_large_as_asked() -> None:
    drawn = draw_views(RULE, np.arange(N), zeros(), sizes(60, 80))
    top, left, height, width = drawn.boxes.T
    assert drawn.boxes.dtype == np.int32
    assert top.min() == left.min() == 0
    assert (top + height).max() == 60
    assert (left + width).max() == 80
    share, aspect = height * width / 4800, width / height
    assert share.min() > 0.28
    assert share.max() < 0.62
    assert aspect.min() > 0.7
    assert aspect.max() < 1.4
    assert abs(share.mean() - 0.45) < 0.005
    assert abs(np.log(aspect).mean()) < 0.005
    assert abs(np.log(aspect).std() - math.log(16 / 9) / math.sqrt(12)) < 0.005
    assert abs(((top + 0.5) / (61 - height)).mean() - 0.5) < 0.005
    assert abs(drawn.flips.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(drawn.flips, share)[0, 1]) < 0.02


def test_a_view_hangs_on_its_own_sample_only() -> None:
    indices, turns = np.array([5, 9, 2, 5]), np.array([0, 1, 7, 3])
    shape = np.array([[60, 80], [64, 64], [30, 20], [60, 80]], np.int32)
    together = draw_views(RULE, indices, turns, shape)
    for row in range(4):
        one = slice(row, row + 1)
        alone = draw_views(RULE, indices[one], turns[one], shape[one])
        assert np.array_equal(alone.boxes[0], together.boxes[row])
        assert alone.flips[0] == together.flips[row]
    assert not np.array_equal(together.boxes[0], together.boxes[3])  # another turn of the same sample


def test_these_views_are_for_ever() -> None:
    """Shards store the logits of views and not the views: another draw would make them wrong."""
    drawn = draw_views(ViewRule(7, (0.5, 1.0), True), np.array([0, 1, 10**9]), np.array([0, 3, 127]), sizes(64, 48, 3))
    assert drawn.boxes.tolist() == [[15, 1, 46, 47], [6, 0, 37, 44], [10, 1, 50, 45]]
    assert drawn.flips.tolist() == [False, True, False]


def test_the_whole_picture_where_no_box_fits() -> None:
    strip = draw_views(ViewRule(3, (0.9, 1.0), True), np.arange(50), zeros(50), sizes(4, 400, 50))
    assert strip.boxes.tolist() == [[0, 0, 4, 400]] * 50
    whole = draw_views(ViewRule(3, (1.0, 1.0), False), np.arange(200), zeros(200), sizes(24, 24, 200))
    assert whole.boxes.tolist() == [[0, 0, 24, 24]] * 200
    assert not whole.flips.any()
    dot = draw_views(RULE, np.arange(50), zeros(50), sizes(1, 1, 50))
    assert dot.boxes.tolist() == [[0, 0, 1, 1]] * 50
