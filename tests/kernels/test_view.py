"""The teacher's view and its adjoint: the application's matrices, a float64 oracle, and derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prism_kernels import KernelInputError, view, view_adjoint, view_matrices
from prism_kernels.testing import assert_close
from torch import Tensor

from tests.kernels.cases import DTYPES, random
from tests.resize import resize_matrix

# height, width, size of the view: odd, prime, one pixel; more than a tile in each direction; reduction and enlargement.
SHAPES = [(1, 1, 1), (1, 1, 5), (13, 11, 7), (7, 5, 13), (40, 72, 68), (96, 80, 33)]


def _boxes(n: int, height: int, width: int) -> Tensor:
    """The whole image, then random parts of it, every other one mirrored."""
    draws = torch.rand(n, 4, generator=torch.Generator().manual_seed(n + height))
    side = 0.4 + 0.6 * draws[:, :2]
    place = draws[:, 2:] * (1 - side)
    parts = [place[:, 0] * height, side[:, 0] * height, place[:, 1] * width, side[:, 1] * width]
    boxes = torch.stack([*parts, torch.arange(n) % 2], 1)
    if n:
        boxes[0] = torch.tensor([0, height, 0, width, 0])
    return boxes


def _matrices(boxes: Tensor, height: int, width: int, size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns in float64, written once more: a filter, normalised."""

    def one(start: float, length: float, size_in: int) -> Tensor:
        step = length / size
        centres = start + (torch.arange(size).double() + 0.5) * step
        x = torch.arange(size_in).double() + 0.5
        weights = torch.relu(1 - (x - centres[:, None]).abs() / max(1.0, step))
        return weights / weights.sum(1, keepdim=True)

    rows, columns = [], []
    for top, tall, left, wide, flip in boxes.double().tolist():
        rows.append(one(top, tall, height))
        column = one(left, wide, width)
        columns.append(column.flip(0) if flip else column)
    return torch.stack(rows).unsqueeze(1), torch.stack(columns).unsqueeze(1)


def _constants(c: int) -> tuple[Tensor, Tensor]:
    return torch.linspace(0.5, 2, c), torch.linspace(-1, 1, c)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matrices_are_the_applications(shape: tuple[int, int, int]) -> None:
    height, width, size = shape
    boxes = _boxes(5, height, width)
    rows, columns = view_matrices(boxes, (height, width), size)
    for k, (top, tall, left, wide, flip) in enumerate(boxes.tolist()):
        column = resize_matrix(left, wide, width, size)
        np.testing.assert_allclose(rows[k, 0], resize_matrix(top, tall, height, size), atol=1e-6)
        np.testing.assert_allclose(columns[k, 0], column[::-1] if flip else column, atol=1e-6)
    assert rows.dtype == columns.dtype == torch.float32


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_float64_oracle(shape: tuple[int, int, int], dtype: torch.dtype, either: str) -> None:
    height, width, size = shape
    n, c = (3, 2) if height < 20 else (2, 1)
    images, boxes, (scale, shift) = random(n, c, height, width, dtype=dtype), _boxes(n, height, width), _constants(c)
    rows, columns = _matrices(boxes, height, width, size)
    got = view(images, boxes, size, scale, shift)
    expected = scale.double().view(-1, 1, 1) * (rows @ images.double() @ columns.mT) + shift.double().view(-1, 1, 1)
    assert got.dtype == dtype
    assert_close("view", got, expected, reduction=height * width, scale=1.0)
    gradient = random(n, c, size, size, dtype=dtype, seed=1)
    back = view_adjoint(gradient, boxes, (height, width), scale)
    assert back.dtype == dtype
    expected = scale.double().view(-1, 1, 1) * (rows.mT @ gradient.double() @ columns)
    assert_close("view", back, expected, reduction=size * size, scale=1.0)


def test_empty_and_non_contiguous(either: str) -> None:
    images, boxes, (scale, shift) = random(2, 3, 9, 10), _boxes(2, 9, 10), _constants(3)
    expected = view(images, boxes, 6, scale, shift)
    last = images.to(memory_format=torch.channels_last)
    got = view(last, boxes.t().contiguous().t(), 6, scale, shift)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    assert view(images[:0], boxes[:0], 6, scale, shift).shape == (0, 3, 6, 6)
    assert view_adjoint(expected[:0], boxes[:0], (9, 10), scale).shape == (0, 3, 9, 10)
    wide = view_adjoint(expected.transpose(2, 3), boxes, (9, 10), scale)
    torch.testing.assert_close(
        wide, view_adjoint(expected.mT.contiguous(), boxes, (9, 10), scale), rtol=1e-6, atol=1e-6
    )


def test_gradient_is_the_adjoint(either: str) -> None:
    """⟨view(x), g⟩ - ⟨shift, g⟩ = ⟨x, adjoint(g)⟩, and autograd gives the adjoint, and its adjoint."""
    images, boxes, (scale, shift) = random(2, 3, 9, 10).requires_grad_(), _boxes(2, 9, 10), _constants(3)
    gradient = random(2, 3, 6, 6, seed=1)
    seen = view(images, boxes, 6, scale, shift)
    (got,) = torch.autograd.grad(seen, images, gradient)
    torch.testing.assert_close(got, view_adjoint(gradient, boxes, (9, 10), scale), rtol=1e-5, atol=1e-6)
    inner = ((seen - shift.view(-1, 1, 1)) * gradient).sum()
    torch.testing.assert_close((images * got).sum(), inner, rtol=1e-4, atol=1e-4)
    leaf = gradient.clone().requires_grad_()
    (again,) = torch.autograd.grad(view_adjoint(leaf, boxes, (9, 10), scale), leaf, images.detach())
    torch.testing.assert_close(again, view(images, boxes, 6, scale, torch.zeros(3)).detach(), rtol=1e-5, atol=1e-5)


def test_outside_of_the_box_nothing_arrives(either: str) -> None:
    box = torch.tensor([[2.0, 3.0, 80.0, 12.0, 1.0]])
    back = view_adjoint(torch.ones(1, 1, 9, 9), box, (70, 100), [1.0])[0, 0]
    assert not back[:1].any()
    assert not back[6:].any()
    assert not back[:, :79].any()
    assert not back[:, 93:].any()
    torch.testing.assert_close(back.sum(), torch.tensor(81.0))


def test_constants_fold_two_normalisations(either: str) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    images, boxes = random(2, 3, 9, 10).tanh(), _boxes(2, 9, 10)
    got = view(images, boxes, 6, [0.5 / s for s in std], [(0.5 - m) / s for m, s in zip(mean, std, strict=True)])
    rows, columns = view_matrices(boxes, (9, 10), 6)
    seen = rows @ (images * 0.5 + 0.5) @ columns.mT
    expected = (seen - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_bad_input() -> None:
    x, boxes, one = random(2, 3, 9, 10), _boxes(2, 9, 10), [1.0] * 3
    with pytest.raises(KernelInputError, match=r"scale \(2,\)"):
        view(x, boxes, 6, [1.0, 1.0], one)
    with pytest.raises(KernelInputError, match=r"boxes \(1, 5\)"):
        view(x, boxes[:1], 6, one, one)
    with pytest.raises(KernelInputError, match="without a gradient"):
        view(x, boxes.requires_grad_(), 6, one, one)
    boxes = boxes.detach()
    with pytest.raises(KernelInputError, match="int64 and size 6"):
        view(x.long(), boxes, 6, one, one)
    with pytest.raises(KernelInputError, match="size 0"):
        view(x, boxes, 0, one, one)
    with pytest.raises(KernelInputError, match="views are square"):
        view_adjoint(x, boxes, (9, 10), one)
    with pytest.raises(KernelInputError, match="expected \\(n, 5\\)"):
        view_matrices(boxes[:, :4], (9, 10), 6)
    for column, value in ((0, -1.0), (1, 0.0), (3, 11.0), (2, float("nan"))):
        wrong = boxes.clone()
        wrong[1, column] = value
        with pytest.raises(KernelInputError, match="box 1 is"):
            view(x, wrong, 6, one, one)
