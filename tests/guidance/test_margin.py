"""Margins: quantiles per class."""

from __future__ import annotations

import pytest
import torch

from prism_fast.guidance.margin import class_margins

ENERGIES = torch.cat([torch.arange(11.0), torch.arange(11.0) * 10 + 100, torch.tensor([5000.0, 6000.0])])
LABELS = torch.tensor([3] * 11 + [0] * 11 + [7] * 2)


@pytest.mark.parametrize(
    ("quantile", "three", "zero"), [(0.0, 0, 100), (0.25, 2.5, 125), (0.5, 5, 150), (1.0, 10, 200)]
)
def test_each_class_gets_its_own_quantile(quantile: float, three: float, zero: float) -> None:
    margins = class_margins(ENERGIES, LABELS, quantile)
    assert margins[3] == pytest.approx(three)
    assert margins[0] == pytest.approx(zero)


def test_a_class_with_too_few_samples_gets_the_overall_quantile() -> None:
    margins = class_margins(ENERGIES, LABELS, 0.5)
    assert margins[7] == pytest.approx(float(ENERGIES.quantile(0.5)))
    assert class_margins(ENERGIES, LABELS, 0.5, minimum=2)[7] == pytest.approx(5500)
    assert set(margins) == {0, 3, 7}


def test_the_order_of_the_samples_does_not_matter() -> None:
    order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
    assert class_margins(ENERGIES[order], LABELS[order], 0.3) == class_margins(ENERGIES, LABELS, 0.3)
