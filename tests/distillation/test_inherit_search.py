"""Which cut of a teacher costs a budget."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from prism_fast.distillation.inherit.search import explained, search
from prism_fast.errors import InputError
from prism_fast.models.classifier import Classifier
from tests.distillation.test_inherit import _teacher


@pytest.fixture(scope="module")
def teacher() -> Classifier:
    return _teacher("test_resnet")


def _batches() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(64, 3, 32, 32, generator=generator)


def test_candidates_cost_the_budget_and_no_more(teacher: Classifier) -> None:
    found = search(teacher, 0.4, widths=(1.0, 0.5))
    assert found
    assert all(0.6 * 0.4 <= one.share <= 0.4 for one in found)
    assert all(one.score is None for one in found)
    assert len({(one.inherit, one.image_size) for one in found}) == len(found)


def test_with_pictures_the_best_readout_comes_first(teacher: Classifier) -> None:
    found = search(teacher, 0.4, _batches, widths=(1.0, 0.5), most=2)
    scores = [one.score for one in found]
    assert len(found) > 1
    assert all(score is not None for score in scores)
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))


def test_with_pictures_residual_blocks_are_left_out_too(teacher: Classifier) -> None:
    found = search(teacher, 0.6, _batches, widths=(1.0,), most=20)
    assert any(one.inherit.depth < 1 for one in found)
    assert all(one.share <= 0.6 for one in found)
    assert all(one.inherit.depth == 1 for one in search(teacher, 0.6, widths=(1.0,), most=20))


def test_what_is_linear_is_explained() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=generator)
    y = x @ torch.randn(8, 3, generator=generator) + 5
    assert explained(x, y) > 0.95
    assert explained(torch.randn(400, 8, generator=generator), y) < 0.1


@pytest.mark.parametrize(
    ("budget", "message"), [(1.5, "between 0 and 1"), (1e-4, "no cut of test_resnet costs 0.0001 of it or less")]
)
def test_a_budget_that_none_meets_is_refused(teacher: Classifier, budget: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(teacher, budget, widths=(1.0,))
