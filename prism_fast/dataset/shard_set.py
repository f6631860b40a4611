"""The finished shards of one run, as everybody reads them who trains, selects, exports or reports."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from prism_fast.dataset.integrity import misplaced
from prism_fast.dataset.layout import Layout
from prism_fast.dataset.ledger import rejected_samples
from prism_fast.dataset.record import Record, read_records, record_files
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard import Shard
from prism_fast.errors import DataError

#: Shards that take together no more than this are hashed when they are found; it takes a fraction of a second.
HASHED_BYTES = 256 << 20
_HASHERS = 4  # a disk answers several requests at once
IMAGE_EXTENSIONS = ("png", "jpg", "webp")


@dataclass(frozen=True)
class ShardSet:
    """The finished shards of one run, all of one format."""

    shards: tuple[Shard, ...]
    rows: int
    classes: int
    image_ext: str

    @classmethod
    def discover(cls, run: Path | str, selected: bool = False, check: bool | None = None) -> ShardSet:
        """Find the shards of a run directory that have a record, and check them.

        A shard whose samples were all quarantined is left out. With ``selected`` so are the samples that
        `prism-fast select` rejected, and shards of which none is left. A folder of shards without a ``run.json`` has no
        plan that they could contradict.

        Sizes and indices are always compared with the records; ``check`` says whether every byte of the tars is, too.
        By default that is done for :data:`HASHED_BYTES` and less.

        Raises:
            DataError: no directory, no finished shard, no sample, a shard that the run did not plan, a truncated or
                damaged tar, a missing or changed index, mixed formats, or no selection that fits the run.
        """
        run = Path(run) if isinstance(run, str) else run
        folder = run / "shards"
        if not folder.is_dir() and not RunDirectory(run).exists():
            raise DataError(f"{folder} does not exist; give the directory that `prism-fast synthesize` wrote")
        finished = _finished(run, folder)
        shards = tuple(shard for shard in finished if shard.record.rows)
        if not shards:
            raise DataError(f"{folder} holds no sample: all of its {len(finished)} shards were quarantined")
        _require_one_format(folder, shards)
        _check(shards, check)
        shards = _selected(run, shards) if selected else shards
        first = shards[0].record
        return cls(shards, sum(shard.kept for shard in shards), first.classes, first.image_ext)

    def samples(self) -> Iterator[Sample]:
        """Every sample, decoded, shard after shard in order of index.

        Raises:
            DataError: a shard cannot be read.
        """
        for shard in self.shards:
            yield from shard.samples()

    def digest(self) -> str:
        """SHA-256 over the shards' own hashes and what is read of them: the identity of the data set."""
        parts = (shard.record.sha256 + "".join(f" {i}" for i in sorted(shard.rejected)) for shard in self.shards)
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def _finished(run: Path, folder: Path) -> list[Shard]:
    files, directory = record_files(folder), RunDirectory(run)
    if not files:
        raise DataError(f"{folder} holds no finished shard; run 'prism-fast synthesize' first")
    layout = directory.layout() if directory.exists() else None
    found = list(zip(files, read_records(files), strict=True))
    for file, record in found:
        _require_own(run, file, record, layout)
    return [Shard(folder, record) for _, record in found]


def _check(shards: Sequence[Shard], every_byte: bool | None) -> None:
    for shard in shards:
        shard.check()
    if every_byte is None:
        every_byte = sum(shard.record.size_bytes for shard in shards) <= HASHED_BYTES
    if every_byte:
        with ThreadPoolExecutor(_HASHERS) as pool:
            list(pool.map(Shard.verify, shards))


def _require_own(run: Path, file: Path, record: Record, layout: Layout | None) -> None:
    if layout and (problem := misplaced(file.stem, record, layout)):
        raise DataError(f"{run}: {problem.partition(';')[0]}; run 'prism-fast repair {run}' first")
    if int(file.stem) != record.shard:
        raise DataError(f"{file} is the record of shard {record.shard:06d}; delete it")
    if record.image_ext not in IMAGE_EXTENSIONS or record.rows < 0 or record.classes < 1:
        found = f"{record.rows} rows, {record.classes} classes as {record.image_ext!r}"
        raise DataError(f"{file}: {found} cannot be read")


def _require_one_format(folder: Path, shards: Sequence[Shard]) -> None:
    for one, other in pairwise(shards):
        mine, theirs = one.record, other.record
        if (mine.classes, mine.image_ext) != (theirs.classes, theirs.image_ext):
            raise DataError(
                f"{folder} mixes formats: {one.tar.name} has {mine.classes} classes as {mine.image_ext}, "
                f"{other.tar.name} has {theirs.classes} as {theirs.image_ext}"
            )


def _selected(run: Path, shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
    rejected = rejected_samples(run, [shard.record.sha256 for shard in shards])
    some = (shard.without(rejected.get(shard.record.shard, frozenset())) for shard in shards)
    if not (left := tuple(shard for shard in some if shard.kept)):
        raise DataError(f"{run}: its selection rejects every sample; select again with 'prism-fast select {run}'")
    return left
