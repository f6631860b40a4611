"""Check a run directory: every planned index exactly once, every byte as recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from prism_fast.dataset.integrity import problem_of
from prism_fast.dataset.layout import Layout
from prism_fast.dataset.record import Record, read_record
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.run_files import damages
from prism_fast.errors import DataError, RunError
from prism_fast.storage.files import names, reading

_FEWEST_THREADS = 4  # a disk answers several requests at once, however few cores there are
#: (shards checked, shards planned, MB a second)
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Finding:
    """One shard of a run, planned or stray, or one file beside the shards.

    ``problem`` is None when it is intact; ``condemned`` are the files that must go before it can be made (again).
    """

    name: str
    record: Record | None = None
    problem: str | None = None
    condemned: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """``problems`` is empty when the run is complete and intact."""

    shards: int
    images: int
    quarantined: int
    size_bytes: int
    problems: tuple[str, ...]


def _inspect_shard(directory: RunDirectory, shard: int, layout: Layout) -> Finding:
    name, folder = f"{shard:06d}", directory.shards
    file = folder / f"{name}.json"
    if not directory.has(shard):
        return Finding(name, problem=f"shard {name} is missing; run the synthesis again")
    try:
        record = read_record(file)
    except DataError as error:
        return Finding(name, problem=str(error), condemned=(file,))
    try:
        problem = problem_of(folder, shard, record, layout)
    except OSError as error:  # not the shard's fault: whoever may not read it must not condemn it either
        reason = error.strerror or error
        raise RunError(f"cannot read shard {name} in {folder}: {reason}; make it readable and try again") from error
    return Finding(name, record, problem, (file,) if problem else ())


def _strays(folder: Path, layout: Layout) -> Iterator[Finding]:
    with reading(folder):
        every = [folder / name for name in sorted(names(folder)) if Path(name).suffix in (".tar", ".idx", ".json")]
    files = [path for path in every if not layout.plans(path.stem)]
    for name in sorted({p.stem for p in files}):
        problem = f"shard {name} is not one of the plan's {layout.shards}; delete {name}.*"
        yield Finding(name, problem=problem, condemned=tuple(p for p in files if p.stem == name))


def inspect(directory: RunDirectory, progress: Progress | None = None) -> Iterator[Finding]:
    """Read every shard, several at a time: the planned ones in order, then the strays, then the files beside them.

    Raises:
        DataError: not a run directory.
        RunError: a shard cannot be read.
    """
    layout, start, size_bytes = directory.layout(), time.monotonic(), 0
    intact: dict[int, Record] = {}
    pool = ThreadPoolExecutor(max(_FEWEST_THREADS, len(os.sched_getaffinity(0))))
    try:
        checks = pool.map(lambda shard: _inspect_shard(directory, shard, layout), range(layout.shards))
        for done, finding in enumerate(checks, 1):
            size_bytes += finding.record.size_bytes if finding.record else 0
            if finding.record and not finding.problem:
                intact[finding.record.shard] = finding.record
            if progress:
                progress(done, layout.shards, size_bytes / 1e6 / max(time.monotonic() - start, 1e-9))
            yield finding
    finally:
        pool.shutdown(cancel_futures=True)
    yield from _strays(directory.shards, layout)
    for damage in damages(directory, intact):
        yield Finding(damage.path.name, problem=damage.problem, condemned=(damage.path,) if damage.there else ())


def verify(path: Path, progress: Progress | None = None) -> Verdict:
    """Read every shard of a run directory and compare it with plan and record, then the files beside the shards.

    Args:
        path: the run's directory.
        progress: told after every shard.

    Raises:
        DataError: ``path`` is not a run directory.
        RunError: a shard cannot be read.
    """
    directory = RunDirectory(path)
    findings = list(inspect(directory, progress))
    records = [f.record for f in findings if f.record]
    return Verdict(
        directory.layout().shards,
        sum(r.rows for r in records),
        sum(len(r.quarantined) for r in records),
        sum(r.size_bytes for r in records),
        tuple(f.problem for f in findings if f.problem),
    )
