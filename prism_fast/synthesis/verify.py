"""Check a run directory: every planned index exactly once, every byte as recorded."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

from prism_fast.errors import DataError
from prism_fast.synthesis.rundir import RunDirectory
from prism_fast.synthesis.shards import Record, read_record


@dataclass(frozen=True)
class Verdict:
    """``problems`` is empty when the run is complete and intact."""

    shards: int
    images: int
    quarantined: int
    size_bytes: int
    problems: tuple[str, ...]


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_shard(folder: Path, shard: int, first: int, planned: int, record: Record, run_hash: str) -> list[str]:
    name = f"{shard:06d}"
    tar, index = folder / f"{name}.tar", folder / f"{name}.idx"
    if record.run_hash != run_hash:
        return [f"shard {name} belongs to run {record.run_hash[:12]}; delete {name}.json and run the synthesis again"]
    if (record.shard, record.first_index, record.planned) != (shard, first, planned):
        return [f"{name}.json is the record of shard {record.shard:06d}; delete it and run the synthesis again"]
    if not tar.exists() or not index.exists():
        return [f"shard {name} has a record but no {'index' if tar.exists() else 'tar'}; delete {name}.json, run again"]
    if tar.stat().st_size != record.size_bytes or _sha256(tar) != record.sha256:
        return [f"{name}.tar differs from its record; delete {name}.json and run the synthesis again"]
    return _check_members(tar, index, record)


def _index_of(members: list[tarfile.TarInfo]) -> str:
    samples: dict[str, list[str]] = {}
    for m in members:
        key, _, extension = m.name.partition(".")
        samples.setdefault(key, []).append(f"{extension} {m.offset_data} {m.size} {m.name}")
    return "\n".join([f"v1.2 {len(samples)}", *map(" ".join, samples.values())]) + "\n"


def _check_members(tar: Path, index: Path, record: Record) -> list[str]:
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
    if index.read_bytes() != _index_of(members).encode():
        return [f"{index.name} does not describe {tar.name}; delete {tar.stem}.json and run the synthesis again"]
    found = sorted({int(m.name.split(".")[0]) for m in members})
    expected = sorted(set(range(record.first_index, record.first_index + record.planned)) - set(record.quarantined))
    return [] if found == expected else [f"{tar.name} holds {len(found)} samples, its record says {len(expected)}"]


def _extra_shards(folder: Path, shards: int) -> list[str]:
    planned = {f"{shard:06d}" for shard in range(shards)}
    extra = {p.stem for p in folder.glob("*") if p.suffix in (".tar", ".idx", ".json")} - planned
    return [f"shard {name} is not one of the plan's {shards}; delete {name}.*" for name in sorted(extra)]


def verify(path: Path) -> Verdict:
    """Read every shard of a run directory and compare it with plan and record.

    Raises:
        DataError: ``path`` is not a run directory.
    """
    directory = RunDirectory(path)
    facts = directory.facts()
    total, size = facts["config"]["synthesis"]["images"], facts["config"]["synthesis"]["shard_size"]
    problems: list[str] = []
    rows = quarantined = size_bytes = 0
    shards = -(-total // size)
    for shard in range(shards):
        file = directory.shards / f"{shard:06d}.json"
        if not file.exists():
            problems.append(f"shard {shard:06d} is missing; run the synthesis again")
            continue
        try:
            record = read_record(file)
        except DataError as error:
            problems.append(str(error))
            continue
        first = shard * size
        planned = min(size, total - first)
        problems += _check_shard(directory.shards, shard, first, planned, record, facts["run_hash"])
        rows, quarantined = rows + record.rows, quarantined + len(record.quarantined)
        size_bytes += record.size_bytes
    problems += _extra_shards(directory.shards, shards)
    return Verdict(shards, rows, quarantined, size_bytes, tuple(problems))
