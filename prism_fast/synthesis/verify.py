"""Check a run directory: every planned index exactly once, every byte as recorded."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from prism_fast.errors import DataError, RunError
from prism_fast.synthesis.files import read, reading
from prism_fast.synthesis.rundir import Layout, RunDirectory
from prism_fast.synthesis.shards import Record, read_record
from prism_fast.synthesis.tarscan import Member, hash_only, scan

#: A sample's key, on each line of an index but the first; with ``^`` for the newline it takes four times as long.
_KEY = re.compile(rb"\n\S* \d+ \d+ ([^. \n]*)")
_FEWEST_THREADS = 4  # a disk answers several requests at once, however few cores there are
#: (shards checked, shards planned, MB a second)
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Finding:
    """One shard of a run, planned or stray.

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


def _problem(folder: Path, shard: int, layout: Layout, record: Record) -> str | None:
    name = f"{shard:06d}"
    tar, index = folder / f"{name}.tar", folder / f"{name}.idx"
    if record.run_hash != layout.run_hash:
        return f"shard {name} belongs to run {record.run_hash[:12]}; delete {name}.json and run the synthesis again"
    if (record.shard, record.first_index, record.planned) != (shard, *layout.extent(shard)):
        return f"{name}.json is the record of shard {record.shard:06d}; delete it and run the synthesis again"
    if not tar.exists() or not index.exists():
        return f"shard {name} has a record but no {'index' if tar.exists() else 'tar'}; delete {name}.json, run again"
    return _difference(tar, index, record)


def _difference(tar: Path, index: Path, record: Record) -> str | None:
    differs = f"{tar.name} differs from its record; delete {tar.stem}.json and run the synthesis again"
    if tar.stat().st_size != record.size_bytes:
        return differs
    listed = read(index)
    if hashlib.sha256(listed).hexdigest() == record.index_sha256:  # written with this tar: no need to list it again
        return _miscount(tar, listed, record) if hash_only(tar) == record.sha256 else differs
    found = scan(tar)
    if found.sha256 != record.sha256:
        return differs
    if listed != _index_of(found.members).encode():
        return f"{index.name} does not describe {tar.name}; delete {tar.stem}.json and run the synthesis again"
    return _miscount(tar, listed, record)


def _miscount(tar: Path, listed: bytes, record: Record) -> str | None:
    found = sorted(_KEY.findall(listed))
    planned = range(record.first_index, record.first_index + record.planned)
    expected = sorted(b"%09d" % i for i in set(planned) - set(record.quarantined))
    return None if found == expected else f"{tar.name} holds {len(found)} samples, its record says {len(expected)}"


def _index_of(members: tuple[Member, ...]) -> str:
    samples: dict[str, list[str]] = {}
    for name, offset, size in members:
        key, _, extension = name.partition(".")
        samples.setdefault(key, []).append(f"{extension} {offset} {size} {name}")
    return "\n".join([f"v1.2 {len(samples)}", *map(" ".join, samples.values())]) + "\n"


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
        problem = _problem(folder, shard, layout, record)
    except OSError as error:  # not the shard's fault: whoever may not read it must not condemn it either
        reason = error.strerror or error
        raise RunError(f"cannot read shard {name} in {folder}: {reason}; make it readable and try again") from error
    return Finding(name, record, problem, (file,) if problem else ())


def _strays(folder: Path, shards: int) -> Iterator[Finding]:
    planned = {f"{shard:06d}" for shard in range(shards)}
    with reading(folder):
        files = sorted(p for p in folder.glob("*") if p.suffix in (".tar", ".idx", ".json") and p.stem not in planned)
    for name in sorted({p.stem for p in files}):
        problem = f"shard {name} is not one of the plan's {shards}; delete {name}.*"
        yield Finding(name, problem=problem, condemned=tuple(p for p in files if p.stem == name))


def inspect(directory: RunDirectory, progress: Progress | None = None) -> Iterator[Finding]:
    """Read every shard, several at a time; the planned ones in order, then the strays.

    Raises:
        DataError: not a run directory.
        RunError: a shard cannot be read.
    """
    layout, start, size_bytes = directory.layout(), time.monotonic(), 0
    pool = ThreadPoolExecutor(max(_FEWEST_THREADS, len(os.sched_getaffinity(0))))
    try:
        checks = pool.map(lambda shard: _inspect_shard(directory, shard, layout), range(layout.shards))
        for done, finding in enumerate(checks, 1):
            size_bytes += finding.record.size_bytes if finding.record else 0
            if progress:
                progress(done, layout.shards, size_bytes / 1e6 / max(time.monotonic() - start, 1e-9))
            yield finding
    finally:
        pool.shutdown(cancel_futures=True)
    yield from _strays(directory.shards, layout.shards)


def verify(path: Path, progress: Progress | None = None) -> Verdict:
    """Read every shard of a run directory and compare it with plan and record.

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
