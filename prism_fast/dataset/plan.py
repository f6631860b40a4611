"""The plan: one row a sample, written before the first sample is made."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prism_fast.config import RunConfig
from prism_fast.dataset.draws import Draws
from prism_fast.errors import ConfigError, DataError
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import LabelSpace
from prism_fast.prompts.row import PlanRow
from prism_fast.prompts.source import prompts_of
from prism_fast.storage.faults import failpoint
from prism_fast.storage.files import building, parquet_sink, parquet_source, read_if_there

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("prompt", pa.string()),
        ("style", pa.string()),
        ("content", pa.string()),
        ("negative_prompt", pa.string()),
    ]
)


def plan_rows(config: RunConfig, space: LabelSpace, start: int, stop: int, draws: Draws | None = None) -> list[PlanRow]:
    """Rows ``start`` to ``stop`` - 1 of the plan; without ``draws`` classes take turns.

    Raises:
        ConfigError: a template of the prompts or the bank is wrong. InputError: there is no such bank.
    """
    prompts = prompts_of(config.prompts, space, config.seed)
    drawn = (draws or Draws(len(space.classes))).rows(start, stop)
    try:
        return [prompts.row(i, label, turn) for i, (label, turn) in enumerate(drawn, start)]
    except KeyError as error:
        raise ConfigError(
            f"prompts: a template names the unknown field {error}; fields: style, content, name, sense, definition"
        ) from error
    except (ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"prompts: a template or content is not a valid format string: {error}") from error


def as_table(rows: Sequence[PlanRow]) -> pa.Table:
    """Plan rows as they are stored."""
    return pa.table({name: [getattr(row, name) for row in rows] for name in SCHEMA.names}, schema=SCHEMA)


def build_plan(config: RunConfig, images: int, draws: Draws | None = None) -> list[PlanRow]:
    """Rows 0 to ``images`` - 1 of the run's plan. Row i does not depend on ``images``."""
    return plan_rows(config, load_label_space(config.labels), 0, images, draws)


def write_plan(
    config: RunConfig,
    path: Path,
    chunk: int = 16_384,
    before: Callable[[], None] = lambda: None,
    draws: Draws | None = None,
) -> int:
    """Write the whole plan to Parquet in bounded memory; returns the number of rows.

    Args:
        config: the run.
        path: where it appears, complete; of several workers that write it at once each writes the same rows.
        chunk: rows in memory.
        before: called when all rows are written and none is seen yet; what it raises leaves nothing behind.
        draws: which class and turn each row is; without, classes take turns.

    Raises:
        ConfigError: a template is wrong.
    """
    space, total = load_label_space(config.labels), config.synthesis.images
    with building(path) as local:
        with parquet_sink(local) as sink, pq.ParquetWriter(sink, SCHEMA) as writer:
            for start in range(0, total, chunk):
                writer.write_table(as_table(plan_rows(config, space, start, min(start + chunk, total), draws)))
        before()
    failpoint("plan-written")
    return total


def is_whole_plan(path: Path, images: int) -> bool:
    """Whether a plan of that many rows lies there, as after neither a power cut nor a change of the run's length."""
    data = read_if_there(path)
    try:
        return data is not None and bool(pq.read_metadata(pa.BufferReader(data)).num_rows == images)
    except (pa.ArrowException, OSError, ValueError):  # as a damaged footer may please
        return False


@contextmanager
def _reading_plan(path: Path) -> Iterator[None]:
    """Say what to do when a plan is none; pyarrow's errors of content are ValueErrors, OSErrors and KeyErrors."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; run the synthesis again") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a plan; delete it and run the synthesis again") from error


def differing_row(found: Sequence[PlanRow], wanted: Sequence[PlanRow]) -> int | None:
    """Place of the first row that differs or is lacking; None when there is none."""
    pairs = enumerate(zip(found, wanted, strict=False))
    differing = next((place for place, (mine, other) in pairs if mine != other), None)
    if differing is None and len(found) != len(wanted):
        return min(len(found), len(wanted))
    return differing


class PlanFile:
    """A plan on disk, read one row group at a time, so that a million rows never lie in memory.

    Raises:
        DataError: it is no plan. RunError: the store refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _reading_plan(path):
            self._file = pq.ParquetFile(parquet_source(path))
            groups = self._file.metadata.num_row_groups
            self._ends = list(accumulate(self._file.metadata.row_group(g).num_rows for g in range(groups)))
        self._latest: tuple[int, pa.Table] | None = None

    def rows(self, start: int, count: int) -> list[PlanRow]:
        """Rows ``start`` to ``start + count`` - 1, or as many of them as there are.

        Raises:
            DataError: they cannot be read.
        """
        found: list[PlanRow] = []
        group = bisect_right(self._ends, start)
        while len(found) < count and group < len(self._ends):
            first = self._ends[group - 1] if group else 0
            with _reading_plan(self.path):
                part = self._group(group).slice(start + len(found) - first, count - len(found))
                found += map(PlanRow, *(part.column(name).to_pylist() for name in SCHEMA.names))
            group += 1
        return found

    def classes(self) -> int:
        """One more than the largest label.

        Raises:
            DataError: they cannot be read.
        """
        with _reading_plan(self.path):
            return int(self._file.read(columns=["label"]).column("label").to_numpy().max(initial=0)) + 1

    def misnumbered(self, labels: np.ndarray) -> int | None:
        """The first row whose index is not its place, or whose class is not that of ``labels``; None if none is.

        Two columns are read and compared at once: a million rows take a tenth of a second.

        Raises:
            DataError: they cannot be read.
        """
        with _reading_plan(self.path):
            table = self._file.read(columns=["index", "label"])
            index, label = (table.column(name).to_numpy() for name in ("index", "label"))
            n = min(len(index), len(labels))
            wrong = np.flatnonzero((index[:n] != np.arange(n)) | (label[:n] != labels[:n]))
        return int(wrong[0]) if len(wrong) else None

    def _group(self, group: int) -> pa.Table:
        if self._latest is None or self._latest[0] != group:
            self._latest = (group, self._file.read_row_group(group))
        return self._latest[1]
