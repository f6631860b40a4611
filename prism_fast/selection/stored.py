"""What a run stores of each sample, without its image: read from the ``.json`` members alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prism_fast.dataset.shard import Shard
from prism_fast.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]
#: (done, in all, a number that says how it goes)
Progress = Callable[[int, int, float], None]
_NO_TOP1 = -1
_ROW = np.dtype([("index", "i8"), ("shard", "i4"), ("label", "i4"), ("energy", "f8"), ("top1", "i4")])


@dataclass(frozen=True)
class Stored:
    """The samples of a run in order of index, 28 bytes each; ``top1`` is -1 where the run does not store it.

    Shapes: all (n,).
    """

    index: Array
    shard: Array
    label: Array
    energy: Array
    top1: Array

    @property
    def has_top1(self) -> bool:
        """Whether every sample stores what the teacher sees in it."""
        return not bool((self.top1 == _NO_TOP1).any())


def _rows(shard: Shard) -> Iterator[tuple[int, int, int, float, int]]:
    number, classes = shard.record.shard, shard.record.classes
    with shard.open() as reader:
        for entry in shard.entries():
            meta = reader.meta(entry)
            if not 0 <= meta["label"] < classes:
                raise ValueError(f"label {meta['label']} of {classes} classes")
            yield entry.index, number, meta["label"], meta["energy_after"], meta.get("teacher_top1", _NO_TOP1)


def _read_shard(shard: Shard) -> Array:
    try:
        return np.array(list(_rows(shard)), dtype=_ROW)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{shard.tar}: a sample's .json lacks label or energy ({error!r}); 'prism-fast verify' says what to do"
        ) from error


def read_stored(shards: Sequence[Shard], progress: Progress | None = None) -> Stored:
    """The samples of ``shards``; in whatever order these are given, the answer is the same.

    Raises:
        DataError: a sample cannot be read or stores no energy, or two have one index.
    """
    parts, read = [], 0
    for done, shard in enumerate(shards, 1):
        parts.append(_read_shard(shard))
        read += len(parts[-1])
        if progress:
            progress(done, len(shards), read)
    rows = np.concatenate(parts)
    rows = rows[np.argsort(rows["index"], kind="stable")]
    twice = rows["index"][1:][np.diff(rows["index"]) == 0]
    if len(twice):
        raise DataError(f"{shards[0].tar.parent} holds sample {twice[0]} twice; 'prism-fast verify' says what to do")
    return Stored(**{name: np.ascontiguousarray(rows[name]) for name in _ROW.names or ()})
