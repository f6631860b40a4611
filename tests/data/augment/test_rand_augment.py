"""RandAugment against torchvision's own table and operations, a picture at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import RandAugment as Theirs

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment.operations import Affine, sharpness
from prism_fast.data.augment.part import Drawn
from prism_fast.data.augment.rand_augment import GROUPS, TABLE, RandAugment, parameter_table
from prism_fast.views.counter import Stream, uniforms
from tests.data.augment.pictures import pictures
from tests.data.toy import MEAN

FILL = torch.tensor(MEAN).view(1, 3, 1, 1)
NAMES = tuple(Theirs._AUGMENTATION_SPACE)
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
N = 40


def theirs(image: Tensor, name: str, magnitude: int, negative: bool) -> Tensor:
    """torchvision's operation of that name at a magnitude of 30.

    With a ``fill`` it weighs the pixels at the picture's edge by their share twice, and leaves them too dark: it gets
    pictures whose fill is zero.
    """
    values, signed = Theirs._AUGMENTATION_SPACE[name]
    found = values(31, *image.shape[1:])
    strength = 0.0 if found is None else float(found[magnitude]) * (-1 if signed and negative else 1)
    shift = FILL[0] if name in GEOMETRIC else torch.zeros(())
    settings: dict[str, Any] = {"interpolation": InterpolationMode.BILINEAR, "fill": {Tensor: None}}
    changed: Tensor = Theirs()._apply_image_or_video_transform(image - shift, name, strength, **settings)
    return changed + shift


def ours(images: Tensor, operation: int, magnitude: int, negative: bool) -> Tensor:
    """Our operation at that place of the table, on all pictures."""
    made = RandAugment(AugmentConfig(rand_augment=1, magnitude=magnitude), 0, FILL)
    row = parameter_table(magnitude / 30, *images.shape[2:])[operation, int(negative)]
    counts = [0] * len(GROUPS)
    counts[GROUPS.index(TABLE[operation].kernel)] = len(images)
    parameters = torch.from_numpy(np.tile(row, (len(images), 1)).astype(np.float32))
    return made.apply(images.clone(), Drawn((torch.arange(len(images)), parameters), tuple(counts)))


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("operation", range(len(NAMES)), ids=NAMES)
def test_each_operation_is_torchvisions(operation: int, magnitude: int) -> None:
    given = pictures(6) * 0.8 + 0.1
    for negative in (False, True):
        found = ours(given, operation, magnitude, negative)
        wanted = torch.stack([theirs(one, NAMES[operation], magnitude, negative) for one in given])
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
        if magnitude == 30 and operation:
            assert (found[2:] - given[2:]).abs().max() > 0.05


def test_pictures_of_different_operations_do_not_meddle() -> None:
    made = RandAugment(AugmentConfig(rand_augment=3, magnitude=12), 5, FILL)
    given, places = pictures(N), np.arange(N)
    together = made.apply(given.clone(), made.draw(places, 20, 24))
    for k in range(N):
        alone = made.apply(given[k : k + 1].clone(), made.draw(places[k : k + 1], 20, 24))
        torch.testing.assert_close(together[k : k + 1], alone, rtol=0, atol=1e-6)


def test_a_picture_gets_what_it_drew() -> None:
    """The first operation of each, by torchvision, from the draws alone."""
    made = RandAugment(AugmentConfig(rand_augment=1, magnitude=12), 5, FILL)
    given, places = pictures(N), np.arange(100, 100 + N)
    found = made.apply(given.clone(), made.draw(places, 20, 24))
    draws = uniforms(5, Stream.OPERATION, places, 0, 2)
    chosen = (draws[:, 0] * len(NAMES)).astype(int)
    assert len(set(chosen)) > 10
    for k in range(N):
        wanted = theirs(given[k], NAMES[chosen[k]], 12, bool(draws[k, 1] < 0.5))
        torch.testing.assert_close(found[k], wanted, rtol=0, atol=2e-5)


def test_every_operation_is_as_likely_in_every_round() -> None:
    drawn = RandAugment(AugmentConfig(rand_augment=2), 5, FILL).draw(np.arange(28_000), 20, 24)
    members = np.array([sum(row.kernel == name for row in TABLE) for name in GROUPS])
    for counts in (drawn.counts[: len(GROUPS)], drawn.counts[len(GROUPS) :]):
        assert sum(counts) == 28_000
        assert np.abs(np.array(counts) / (2000 * members) - 1).max() < 0.1


def test_a_sharp_picture_of_two_pixels_stays() -> None:
    given = pictures(4, 2, 9)
    assert torch.equal(sharpness(given.clone(), torch.zeros(4, 6)), given)


def test_what_comes_from_outside_has_the_fill() -> None:
    far = torch.tensor([[1.0, 0, 500, 0, 1, 0]]).expand(2, 6)
    moved = Affine(FILL)(pictures(2).clone(), far)
    torch.testing.assert_close(moved, FILL.expand_as(moved))
