"""Whether the files beside a run's shards are what the run says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prism_fast.config import RunConfig
from prism_fast.dataset.draws import load_draws
from prism_fast.dataset.ledger import ledger_path, read_ledger
from prism_fast.dataset.made_with import load_made_with
from prism_fast.dataset.margins import load_margins
from prism_fast.dataset.plan import PlanFile, differing_row, plan_rows
from prism_fast.dataset.record import Record
from prism_fast.dataset.run_directory import RunDirectory, manifest_rows
from prism_fast.dataset.view_files import problem_of_views, view_files
from prism_fast.errors import DataError, InputError
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import LabelSpace
from prism_fast.storage.files import parquet_source

_CHUNK = 16_384
#: Of a longer plan the rows behind these are counted and their classes compared: a million take half a minute else.
#: Nothing is lost by it: a worker compares every row that it makes a sample of.
_COMPARED = 131_072
#: Columns of a manifest that none may lack.
_MANIFEST = {"shard", "rows", "sha256"}


@dataclass(frozen=True)
class Damage:
    """One file and what is wrong with it; ``there`` is false when it is missing."""

    path: Path
    problem: str
    there: bool = True


def damages(directory: RunDirectory, records: Mapping[int, Record]) -> Iterator[Damage]:
    """What is wrong with plan, engines, margins, selection and views; with manifest and card if all is finished.

    A file that a run need not have may be missing. The plan's rows are compared with those that the configuration gives
    if its label file is still the one that the run was begun with.

    Args:
        directory: the run.
        records: of the intact shards.

    Raises:
        DataError: not a run directory. RunError: a file cannot be read.
    """
    yield from _of_decisions(directory)
    yield from _of_choices(directory)
    yield from _of_selection(directory)
    yield from _of_views(directory, records)
    if len(records) == directory.layout().shards:
        yield from _of_finish(directory, records)


def _of_decisions(directory: RunDirectory) -> Iterator[Damage]:
    """Of the decisions, and of the plan unless they are damaged: nobody knows then what it should be."""
    try:
        for decision in directory.decisions():
            load_draws(directory.path, [decision], 1)
    except DataError as error:
        yield Damage(directory.path / decision.file, str(error), there=False)  # making the run does not bring it back
    else:
        yield from _of_plan(directory)


def _of_plan(directory: RunDirectory) -> Iterator[Damage]:
    path, images = directory.path / "plan.parquet", directory.layout().images
    if not path.exists():
        yield Damage(path, f"{path.name} is missing; run the synthesis again", there=False)
        return
    try:
        row = _differing(PlanFile(path), directory, images)
    except DataError as error:
        yield Damage(path, str(error))
        return
    if row is not None:
        problem = f"{path.name} is damaged at row {row}; delete it and run the synthesis again"
        yield Damage(path, problem)


def _differing(plan: PlanFile, directory: RunDirectory, images: int) -> int | None:
    """The first row that is not as planned; None when all are."""
    known, draws = _what_was_planned(directory), directory.draws(plan.classes())
    compared = min(images, _COMPARED)
    for start in range(0, compared, _CHUNK):
        count = min(_CHUNK, compared - start)
        found = plan.rows(start, count)
        if known:
            place = differing_row(found, plan_rows(*known, start, start + count, draws))
        else:
            place = next((i for i in range(count) if i >= len(found) or found[i].index != start + i), None)
        if place is not None:
            return start + place
    if images > compared and (place := plan.misnumbered(draws.arrays(0, images)[0])) is not None:
        return place
    return images if plan.rows(images, 1) else None


def _what_was_planned(directory: RunDirectory) -> tuple[RunConfig, LabelSpace] | None:
    """Configuration and labels of the run; None when they are no longer what they were."""
    try:
        config = directory.config()
        same = config.run_hash() == directory.layout().run_hash
        return (config, load_label_space(config.labels)) if same else None
    except InputError:  # of another version, or its label file has gone
        return None


def _of_choices(directory: RunDirectory) -> Iterator[Damage]:
    engines, margins = directory.path / "engines.json", directory.path / "margins.json"
    try:
        load_made_with(engines)
    except DataError as error:
        yield Damage(engines, str(error))
    if load_margins(margins) is None and margins.exists():
        yield Damage(margins, f"{margins.name} is damaged; delete it, and they are calibrated again")


def _of_selection(directory: RunDirectory) -> Iterator[Damage]:
    path = ledger_path(directory.path)
    if path.exists():
        try:
            read_ledger(directory.path)
        except DataError as error:
            yield Damage(path, str(error))


def _of_views(directory: RunDirectory, records: Mapping[int, Record]) -> Iterator[Damage]:
    layout = directory.layout()
    for path in view_files(directory.path):
        if problem := problem_of_views(path, layout, records.get(int(path.stem))):
            yield Damage(path, problem)


def _of_finish(directory: RunDirectory, records: Mapping[int, Record]) -> Iterator[Damage]:
    for path in (directory.manifest, directory.path / "README.md"):
        if not path.exists():
            yield Damage(path, f"{path.name} is missing; run the synthesis again", there=False)
    card = directory.path / "README.md"
    if card.exists() and not card.is_file():
        yield Damage(card, f"{card.name} is not a file; delete it and run the synthesis again")
    if directory.manifest.exists() and not _lists(directory.manifest, [r for _, r in sorted(records.items())]):
        problem = f"{directory.manifest.name} does not list the run's shards; delete it and run the synthesis again"
        yield Damage(directory.manifest, problem)


def _lists(manifest: Path, records: list[Record]) -> bool:
    """Whether the manifest says of the shards what their records say; those of before say less."""
    try:
        found = pq.read_table(parquet_source(manifest)).to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return False
    if len(found) != len(records):
        return False
    return all(
        row.keys() >= _MANIFEST
        and all(row[key] == wanted[key] for key in row.keys() & wanted.keys() if wanted[key] != "")
        for row, wanted in zip(found, manifest_rows(records), strict=True)
    )
