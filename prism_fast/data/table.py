"""Where the parts of a shard's samples lie in its tar: arrays, not an object a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from prism_fast.dataset.shard import Entry, Shard
from prism_fast.errors import DataError

#: Lines parsed at once: a million lines' words would take a gigabyte.
_LINES = 4096
_WORDS = 4  # of a member: extension, offset, size, name


@dataclass(frozen=True)
class Table:
    """A row a sample that is not rejected, in order: its index, where a part begins, and its size.

    Shapes: rows (n, 5): index, image, size of the image, label, logits; shards (n,): place in the shard set.
    Dtypes: rows int64; shards int32.
    """

    rows: np.ndarray[Any, np.dtype[np.int64]]
    shards: np.ndarray[Any, np.dtype[np.int32]]


INDEX, IMAGE, SIZE, LABEL, LOGITS = range(5)


def read_table(shards: Sequence[Shard], places: Sequence[int]) -> Table:
    """The samples of several shards, one shard after another.

    Raises:
        DataError: an index cannot be read, is malformed, or does not hold what its record says.
    """
    parts = [_rows(shards[place]) for place in places]
    numbers = np.repeat(np.array(places, np.int32), [len(part) for part in parts])
    return Table(np.concatenate(parts), numbers)


def _rows(shard: Shard) -> np.ndarray[Any, np.dtype[np.int64]]:
    try:
        rows = np.concatenate(list(_parsed(shard)))
        if len(rows) != shard.record.rows:
            raise ValueError("another number of lines")
    except (OSError, ValueError, IndexError):
        # Whatever is unusual goes the slow way, which says what is wrong if something is.
        return np.array([_row(entry) for entry in shard.entries()], np.int64).reshape(-1, 5)
    if shard.only is not None:
        rows = rows[np.isin(rows[:, INDEX], list(shard.only))]
    elif shard.rejected:
        rows = rows[~np.isin(rows[:, INDEX], list(shard.rejected))]
    if len(rows) != shard.kept:
        raise DataError(f"{shard.index}: expected {shard.kept} samples that are not rejected, found {len(rows)}")
    return rows


def _row(entry: Entry) -> tuple[int, int, int, int, int]:
    return entry.index, entry.image.offset, entry.image.size, entry.label.offset, entry.logits.offset


def _parsed(shard: Shard) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    """An index whose lines are all alike, a tenth of the time that an object a line takes.

    Raises:
        ValueError: it isn't one.
    """
    with shard.index.open("rb") as file:
        if file.readline().split() != [b"v1.2", b"%d" % shard.record.rows]:
            raise ValueError("another header")
        while lines := list(islice(file, _LINES)):
            yield _columns(lines, shard)


def _columns(lines: Sequence[bytes], shard: Shard) -> np.ndarray[Any, np.dtype[np.int64]]:
    words, step = b"".join(lines).split(), len(lines[0].split())
    if len(words) != step * len(lines) or step % _WORDS:
        raise ValueError("lines of several lengths")
    first = words[:step:_WORDS]
    if any(set(words[at * _WORDS :: step]) != {extension} for at, extension in enumerate(first)):
        raise ValueError("several orders")
    image, label, logits = (
        first.index(extension.encode()) * _WORDS for extension in (shard.record.image_ext, "label", "logits")
    )
    names = [int(name.partition(b".")[0]) for name in words[_WORDS - 1 :: step]]
    columns = [words[at::step] for at in (image + 1, image + 2, label + 1, logits + 1, label + 2, logits + 2)]
    found = np.stack([np.array(column).astype(np.int64) for column in columns], axis=1)
    if found.min() < 0 or (found[:, 4] != 4).any() or (found[:, 5] != 2 * shard.record.classes).any():
        raise ValueError("sizes that are none")
    return np.column_stack([np.array(names, np.int64), found[:, :4]])
