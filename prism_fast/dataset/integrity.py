"""Whether a finished shard is what its record and its run say, read once and fast."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from prism_fast.dataset.layout import Layout
from prism_fast.dataset.record import Record
from prism_fast.dataset.tar_scan import Member, hash_only, scan
from prism_fast.storage.files import read

#: A sample's key, on each line of an index but the first; with ``^`` for the newline it takes four times as long.
_KEY = re.compile(rb"\n\S* \d+ \d+ ([^. \n]*)")


def misplaced(name: str, record: Record, layout: Layout) -> str | None:
    """Why the record called ``name`` is none of this run's; None when it is."""
    if not layout.plans(name):
        return f"shard {name} is not one of the plan's {layout.shards}; delete {name}.*"
    if record.run_hash != layout.run_hash:
        return f"shard {name} belongs to run {record.run_hash[:12]}; delete {name}.json and run the synthesis again"
    if (record.shard, record.first_index, record.planned) != (int(name), *layout.extent(int(name))):
        return f"{name}.json is the record of shard {record.shard:06d}; delete it and run the synthesis again"
    return None


def problem_of(folder: Path, shard: int, record: Record, layout: Layout) -> str | None:
    """What is wrong with a shard, every byte of it read; None when it is intact.

    Raises:
        OSError: it cannot be read.
    """
    name = f"{shard:06d}"
    if problem := misplaced(name, record, layout):
        return problem
    tar, index = folder / f"{name}.tar", folder / f"{name}.idx"
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
