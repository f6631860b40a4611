from __future__ import annotations

import numpy as np
import pytest

from prism_fast.selection import duplicates
from prism_fast.selection.duplicates import ACCEPTED, OVER_QUOTA, keep_distinct


def one_by_one(features: np.ndarray, quota: int, cosine: float) -> list[int]:
    """The definition, row after row."""
    fate: list[int] = []
    for row, feature in enumerate(features):
        accepted = [i for i in range(row) if fate[i] == ACCEPTED]
        similar = [i for i in accepted if features[i] @ feature >= cosine]
        fate.append(OVER_QUOTA if len(accepted) >= quota else similar[0] if similar else ACCEPTED)
    return fate


@pytest.mark.parametrize("block", [1, 3, 256])
@pytest.mark.parametrize("quota", [0, 1, 5, 9, 100])
def test_blocks_decide_as_rows_do(monkeypatch: pytest.MonkeyPatch, block: int, quota: int) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    features = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    wanted = one_by_one(features, quota, 0.8)
    assert keep_distinct(features, quota, 0.8).tolist() == wanted
    if quota == 100:
        assert 5 < sum(fate >= 0 for fate in wanted) < 35  # the case is not empty


def test_a_rejected_one_rejects_nobody() -> None:
    angles = np.radians([0, 20, 40])  # neighbours are alike, the ends are not
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert keep_distinct(features, 3, 0.9).tolist() == [ACCEPTED, 0, ACCEPTED]


def test_equal_features_are_duplicates_at_one_and_zeros_are_not() -> None:
    features = np.random.default_rng(1).normal(size=(1, 700)).astype(np.float32)
    features = np.concatenate([features / np.linalg.norm(features)] * 2 + [np.zeros((2, 700), np.float32)])
    assert keep_distinct(features, 9, 1.0).tolist() == [ACCEPTED, 0, ACCEPTED, ACCEPTED]
