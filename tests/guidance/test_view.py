"""View matrices against torch's antialiased bilinear resize."""

from __future__ import annotations

import numpy as np
import prism_kernels
import pytest
import torch
import torch.nn.functional as F

from prism_fast.guidance.view import WholeView, apply_view, view_boxes
from tests.resize import resize_matrix


def view_matrices(
    draws: np.ndarray, area: tuple[float, float], flip: bool, size: tuple[int, int], out: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return prism_kernels.view_matrices(view_boxes(draws, area, flip, size), size, out)


def _images(n: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.mark.parametrize("size", [(64, 64), (17, 31), (128, 96), (5, 200), (1, 1)])
@pytest.mark.parametrize("out", [1, 7, 32, 64, 97])
def test_the_full_view_is_torchs_resize(size: tuple[int, int], out: int) -> None:
    images = _images(2, *size)
    rows, columns = view_matrices(np.full((2, 4), 0.3), (1.0, 1.0), True, size, out)
    # In float64: torch's own float32 weights are off by up to 7e-6 at these sizes.
    double = F.interpolate(images.double(), size=(out, out), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(apply_view(images, rows, columns).double(), double, rtol=0, atol=1e-6)


def test_the_same_size_is_the_image_itself() -> None:
    images = _images(1, 32, 32)
    rows, columns = view_matrices(np.zeros((1, 4)), (1.0, 1.0), False, (32, 32), 32)
    assert torch.equal(apply_view(images, rows, columns), images)


def test_a_flip_is_exact() -> None:
    draws = np.array([[0.4, 0.2, 0.7, 0.0], [0.4, 0.2, 0.7, 0.4999], [0.4, 0.2, 0.7, 0.5], [0.4, 0.2, 0.7, 0.9999]])
    rows, columns = view_matrices(draws, (0.5, 1.0), True, (40, 24), 32)
    images = _images(1, 40, 24).expand(4, -1, -1, -1)
    seen = apply_view(images, rows, columns)
    assert torch.equal(columns[0].flip(-2), columns[2])
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    torch.testing.assert_close(seen[2], seen[0].flip(-1), rtol=0, atol=1e-6)
    _, plain = view_matrices(draws, (0.5, 1.0), False, (40, 24), 32)
    assert torch.equal(plain[3], columns[0])


@pytest.mark.parametrize("corner", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rows_sum_to_one_and_the_crop_stays_inside(share: float, corner: float) -> None:
    """Draws at the ends of their ranges; a triangle as wide as the step reaches just past the crop, never the image."""
    height, width, out = 30, 44, 13
    draws = np.array([[share, corner, corner, 0.0]])
    for matrix, size in zip(
        view_matrices(draws, (0.25, 0.81), True, (height, width), out), (height, width), strict=True
    ):
        side = (0.5 + 0.4 * share) * size  # sqrt(0.25) to sqrt(0.81), as share is 0 or 1
        weights = matrix[0, 0].double()
        assert weights.shape == (out, size)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(1), torch.ones(out, dtype=torch.float64), rtol=0, atol=1e-6)
        centres = weights @ (torch.arange(size, dtype=torch.float64) + 0.5)
        start = corner * (size - side)
        assert centres.min() >= max(start - 1e-6, 0)
        assert centres.max() <= min(start + side + 1e-6, size)
        used = weights.sum(0).nonzero()[:, 0]
        reach = max(1.0, side / out)
        assert used.min() + 0.5 > start + side / out / 2 - reach
        assert used.max() + 0.5 < start + side - side / out / 2 + reach


def test_a_crop_on_whole_pixels_is_torchs_resize_away_from_its_border() -> None:
    """Inside, the filter cannot know of the border; at the border ours sees the neighbouring pixels, torch's none."""
    signal = _images(1, 1, 48)[0, :1, :1]
    matrix = torch.from_numpy(resize_matrix(8, 32, 48, 16))
    expected = F.interpolate(signal[..., 8:40].unsqueeze(2), size=(1, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close((signal[0] @ matrix.T)[0, 1:-1], expected[0, 0, 0, 1:-1], rtol=0, atol=1e-6)


def test_a_constant_image_stays_constant() -> None:
    draws = np.random.default_rng(0).random((50, 4))
    rows, columns = view_matrices(draws, (0.08, 1.0), True, (64, 64), 37)
    seen = apply_view(torch.full((50, 3, 64, 64), 0.6), rows, columns)
    torch.testing.assert_close(seen, torch.full_like(seen, 0.6), rtol=0, atol=2e-6)
    assert rows.dtype == columns.dtype == torch.float32


def test_views_of_one_sample_do_not_depend_on_the_others() -> None:
    draws = np.random.default_rng(1).random((5, 4))
    together = view_matrices(draws, (0.3, 1.0), True, (16, 16), 9)
    alone = view_matrices(draws[3:4], (0.3, 1.0), True, (16, 16), 9)
    for many, one in zip(together, alone, strict=True):
        assert torch.equal(many[3:4], one)


@pytest.mark.parametrize(("size", "out"), [((64, 64), 128), ((20, 33), 17)])
def test_the_whole_view_is_torchs_resize(size: tuple[int, int], out: int) -> None:
    images = _images(2, *size)
    expected = F.interpolate(images.double(), size=(out, out), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(WholeView(size, out)(images).double(), expected, rtol=0, atol=1e-6)
