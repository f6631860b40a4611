"""A selection is read as it was written, a chunk of rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prism_fast.dataset import ledger
from prism_fast.dataset.ledger import REASONS, Ledger, read_ledger, rejected_samples, write_ledger

HASHES = ["a" * 64, "b" * 64, "c" * 64]


def written(run: Path, reason: list[int]) -> Path:
    """A selection of ten samples in shards of four."""
    count = len(reason)
    index = np.arange(count)
    entries = Ledger(
        index, index // 4, index % 3, np.linspace(-1, 1, count), np.array(reason), np.full(count, -1, np.int64)
    )
    return write_ledger(run, entries, {}, HASHES)


def test_the_hash_of_the_rows_does_not_depend_on_the_chunks(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = [0, 1, 2, 0, 3, 4, 0, 0, 1, 0]
    whole = written(run, reason).read_bytes()
    for chunk in (1, 3, 10):
        monkeypatch.setattr(ledger, "_CHUNK", chunk)
        assert read_ledger(run)[0].column("reason").to_pylist() == [REASONS[r] for r in reason]
        assert written(run, reason).read_bytes() == whole


def test_rejected_indices_are_those_of_their_shard(run: Path) -> None:
    written(run, [0, 1, 2, 0, 0, 0, 0, 0, 1, 4])
    assert rejected_samples(run, HASHES) == {0: frozenset({1, 2}), 2: frozenset({8, 9})}
    written(run, [0] * 10)
    assert rejected_samples(run, HASHES) == {}
