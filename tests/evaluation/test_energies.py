"""Energies, their histograms and distances."""

from __future__ import annotations

import math

import pytest
import torch

from prism_fast.errors import InputError
from prism_fast.evaluation.energies import energy_histogram, free_energies


def test_free_energy_known_values() -> None:
    logits = torch.zeros(2, 8)
    logits[1, 3] = 1000.0
    assert free_energies(logits, 2.0)[0] == pytest.approx(-2 * math.log(8))
    assert free_energies(logits)[1] == pytest.approx(-1000)
    with pytest.raises(InputError, match="T > 0"):
        free_energies(logits, 0)


def test_histogram_counts_everything_and_shift_is_the_distance() -> None:
    real = torch.randn(101, generator=torch.Generator().manual_seed(0))
    histogram = energy_histogram({"guided": real + 0.25, "unguided": real - 3, "real": real}, bins=13)
    assert len(histogram.edges) == 14
    assert [sum(s.counts) for s in histogram.sets] == [101, 101, 101]
    assert [s.distance_to_real for s in histogram.sets] == pytest.approx([0.25, 3.0, 0.0], abs=1e-6)
    assert histogram.sets[2].mean == pytest.approx(float(real.mean()), abs=1e-6)
    assert histogram.sets[2].median == pytest.approx(float(real.median()), abs=1e-6)


def test_constant_and_without_real() -> None:
    histogram = energy_histogram({"one": torch.full((5,), -2.0)}, real=None, bins=4)
    assert sum(histogram.sets[0].counts) == 5
    assert histogram.sets[0].distance_to_real is None
    assert histogram.sets[0].std == 0


def test_bad_input() -> None:
    good = torch.zeros(3)
    with pytest.raises(InputError, match="'real' is not among"):
        energy_histogram({"guided": good})
    with pytest.raises(InputError, match="no energies"):
        energy_histogram({"real": good, "guided": good[:0]})
    with pytest.raises(InputError, match="NaN"):
        energy_histogram({"real": good / 0})
    with pytest.raises(InputError, match="bins"):
        energy_histogram({"real": good}, bins=0)
    with pytest.raises(InputError, match="no energies to describe"):
        energy_histogram({})
