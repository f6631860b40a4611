"""What a run holds so far, from its plan and its records; no tar is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prism_fast.dataset.record import Record
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import DataError
from prism_fast.storage.files import parquet_source

Labels = np.ndarray[Any, np.dtype[np.integer[Any]]]


@dataclass(frozen=True)
class ImagesByClass:
    """Images of the rarest class, of a class on average, and of the commonest."""

    min: int
    mean: float
    max: int


@dataclass(frozen=True)
class Stats:
    """A run in numbers.

    ``objective_before_mean`` is the guided objective before guidance, ``energy_after_mean`` the free energy after it;
    both are over all images, None when no record has one. ``images_per_s`` is that of one worker: images by the seconds
    that the records add up to.
    """

    run_hash: str
    images: int
    images_planned: int
    shards: int
    shards_planned: int
    quarantined: int
    size_bytes: int
    classes: int
    images_by_class: ImagesByClass
    objective_before_mean: float | None
    energy_after_mean: float | None
    images_per_s: float | None


def _labels(directory: RunDirectory, images: int) -> Labels:
    """The label of each row of a run's plan.

    Raises:
        DataError: it is not a plan of so many images, or of other classes than the run's, which would be counted.
    """
    plan = directory.path / "plan.parquet"
    try:
        found: Labels = pq.read_table(parquet_source(plan), columns=["label"]).column("label").to_numpy()
        if len(found) != images:
            raise ValueError(f"{len(found)} rows")
        wanted = directory.draws(int(found.max()) + 1).arrays(0, images)[0]
        if (found != wanted).any():
            raise ValueError("its classes are not those whose turn it is")
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, ZeroDivisionError) as error:
        raise DataError(f"{plan} is not a plan of {images} images; delete it and run the synthesis again") from error
    return found


def _by_class(labels: Labels, records: Sequence[Record]) -> Labels:
    """Images of each class: what was planned for the finished shards, less what was quarantined."""
    counts = np.zeros(max([int(labels.max()) + 1, *(record.classes for record in records)]), dtype=np.int64)
    for record in records:
        planned = np.arange(record.first_index, record.first_index + record.planned)
        made = planned[~np.isin(planned, record.quarantined)]
        counts += np.bincount(labels[made], minlength=len(counts))
    return counts


def _mean(pairs: Iterable[tuple[float | None, int]]) -> float | None:
    known = [(value, rows) for value, rows in pairs if value is not None]
    rows = sum(rows for _, rows in known)
    return sum(value * n for value, n in known) / rows if rows else None


def stats(path: Path) -> Stats:
    """Count a run, finished or not, as its records say: whether the shards still hold that, ``verify`` finds out.

    Raises:
        DataError: not a run directory, or a plan or record that is none. RunError: it cannot be read.
    """
    directory = RunDirectory(path)
    layout = directory.layout()
    planned = range(layout.shards)  # strays, and records of other runs, are for `verify`
    records = [r for shard, r in directory.records().items() if shard in planned and r.run_hash == layout.run_hash]
    by_class = _by_class(_labels(directory, layout.images), records)
    images, seconds = sum(r.rows for r in records), sum(r.seconds for r in records)
    return Stats(
        run_hash=layout.run_hash,
        images=images,
        images_planned=layout.images,
        shards=len(records),
        shards_planned=layout.shards,
        quarantined=sum(len(r.quarantined) for r in records),
        size_bytes=sum(r.size_bytes for r in records),
        classes=len(by_class),
        images_by_class=ImagesByClass(int(by_class.min()), float(by_class.mean()), int(by_class.max())),
        objective_before_mean=_mean((r.objective_before_mean, r.rows) for r in records),
        energy_after_mean=_mean((r.energy_after_mean, r.rows) for r in records),
        images_per_s=images / seconds if seconds else None,
    )
