"""A view's pixels against a plain oracle in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prism_fast.views.draw import ViewRule, Views, draw_views
from prism_fast.views.render import render, render_all


def matrix(length: int, side: int) -> np.ndarray:
    """(side, length): a triangle at least a pixel wide, whose part beyond an edge falls on the edge's pixel."""
    step = length / side
    width, found = max(1.0, step), np.zeros((side, length))
    for row in range(side):
        centre = (row + 0.5) * step
        for pixel in range(-length, 2 * length):
            found[row, min(max(pixel, 0), length - 1)] += max(0.0, 1 - abs(pixel + 0.5 - centre) / width)
    return np.asarray(found / found.sum(1, keepdims=True))


def oracle(image: torch.Tensor, box: tuple[int, int, int, int], flip: bool, side: int) -> torch.Tensor:
    top, left, height, width = box
    crop = image[:, top : top + height, left : left + width].double().numpy() / 255
    seen = matrix(height, side) @ crop @ matrix(width, side).T
    return torch.from_numpy(seen[:, :, ::-1].copy() if flip else seen)


def noise(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("box", "side"),
    [
        ((0, 0, 60, 50), 16),  # both shrink
        ((3, 5, 48, 33), 16),
        ((3, 5, 17, 40), 16),  # hardly, and much
        ((10, 0, 20, 9), 33),  # both grow
        ((10, 0, 8, 50), 20),  # one of each
        ((0, 0, 60, 50), 50),  # one stays
        ((59, 49, 1, 1), 16),
    ],
)
def test_a_view_is_what_the_triangle_filter_says(box: tuple[int, int, int, int], side: int, flip: bool) -> None:
    image = noise(60, 50)
    seen = render(image, box, flip, side)
    assert (seen.shape, seen.dtype) == ((3, side, side), torch.float32)
    torch.testing.assert_close(seen.double(), oracle(image, box, flip, side), atol=5e-6, rtol=0)


def test_a_whole_picture_at_its_own_size_is_left_as_it_is() -> None:
    image = noise(24, 24)
    assert torch.equal(render(image, (0, 0, 24, 24), False, 24), image / 255)


def test_nothing_outside_of_the_box_is_seen() -> None:
    image, other = noise(40, 40), noise(40, 40)
    other[:, :5] = 0
    other[:, :, 30:] = 255
    box = (5, 4, 20, 26)
    assert torch.equal(render(image, box, False, 16), render(other, box, False, 16))


def test_several_views_are_rendered_as_each_alone() -> None:
    images = torch.stack([noise(40, 30), noise(40, 30).flip(1), noise(40, 30).flip(2)])
    views = draw_views(
        ViewRule(1, (0.3, 1.0), True), np.arange(3), np.zeros(3, np.int64), np.full((3, 2), (40, 30), np.int32)
    )
    found = render_all(images, views, 16)
    for row in range(3):
        alone = render(images[row], views.boxes[row].tolist(), bool(views.flips[row]), 16)
        assert torch.equal(found[row], alone)
    with pytest.raises(ValueError, match="zip"):
        render_all(images[:2], Views(views.boxes, views.flips), 16)


@pytest.mark.parametrize("side", [16, 64])
def test_dali_resizes_alike(side: int) -> None:
    """Whatever the loaders are made of: the filter of the definition is DALI's."""
    dali = pytest.importorskip("nvidia.dali")
    fn, types = pytest.importorskip("nvidia.dali.fn"), pytest.importorskip("nvidia.dali.types")
    images = [noise(h, w) for h, w in ((16, 16), (17, 40), (64, 31), (100, 90))]
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images]

    @dali.pipeline_def(batch_size=len(images), num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def resize() -> object:
        given = fn.external_source(source=lambda: arrays, layout="HWC")
        return fn.resize(given, size=[side, side], antialias=True, dtype=types.FLOAT)

    pipe = resize()
    pipe.build()
    (found,) = pipe.run()
    for row, image in enumerate(images):
        theirs = torch.from_numpy(np.array(found.at(row))).permute(2, 0, 1) / 255
        ours = render(image, (0, 0, *image.shape[1:]), False, side)
        torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=0)
