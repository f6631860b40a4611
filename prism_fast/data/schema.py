"""What a batch is, and which shards of a run directory can be read.

A finished shard is three files: ``NNNNNN.tar``, its DALI index ``NNNNNN.idx`` and its record ``NNNNNN.json``, which is
written last. A tar without a record does not exist for us.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from prism_fast.errors import DataError
from prism_fast.selection.ledger import rejected_samples

IMAGE_EXTENSIONS = ("png", "jpg", "webp")
_BLOCK = 512
_END_OF_ARCHIVE = bytes(2 * _BLOCK)


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Shapes: images (n, 3, s, s), labels (n,), logits (n, classes).
    Dtypes: images float32, normalised by the teacher's mean and std; labels int64; logits float32.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Member:
    """Where one file of a sample lies inside its tar."""

    offset: int
    size: int


@dataclass(frozen=True)
class Sample:
    """The parts of a sample that are read one by one; ``meta`` is the `.json`."""

    index: int
    image: Member
    label: Member
    logits: Member
    meta: Member


@dataclass(frozen=True)
class Shard:
    """One finished shard and what its record says; the samples of ``rejected`` indices are not read."""

    tar: Path
    index: Path
    rows: int
    classes: int
    image_ext: str
    sha256: str
    rejected: frozenset[int] = frozenset()

    @property
    def number(self) -> int:
        """Place among the run's shards."""
        return int(self.tar.stem)

    @property
    def kept(self) -> int:
        """Number of samples that are read."""
        return self.rows - len(self.rejected)

    def samples(self) -> list[Sample]:
        """Offsets of every sample that is not rejected, from the index.

        Raises:
            DataError: the index is malformed, or does not belong to this record.
        """
        return [sample for _, sample in self._entries()]

    def index_text(self) -> str:
        """An index in DALI's format of the samples that are not rejected.

        Raises:
            DataError: the index does not belong to this record.
        """
        return "\n".join([f"v1.2 {self.kept}", *(line for line, _ in self._entries())]) + "\n"

    def _entries(self) -> list[tuple[str, Sample]]:
        """Lines of the index and what they say, without the header and what is rejected."""
        lines = self.index.read_text().splitlines()
        if not lines or lines[0].split() != ["v1.2", str(self.rows)]:
            found = lines[0] if lines else "an empty file"
            raise DataError(f"{self.index}: expected the header 'v1.2 {self.rows}', found {found!r}; rebuild the shard")
        if len(lines) != self.rows + 1:
            raise DataError(f"{self.index}: expected {self.rows} samples, found {len(lines) - 1}; rebuild the shard")
        entries = [(line, self._sample(line)) for line in lines[1:]]
        return [(line, sample) for line, sample in entries if sample.index not in self.rejected]

    def _sample(self, line: str) -> Sample:
        words = line.split()
        try:
            members = {
                ext: Member(int(offset), int(size))
                for ext, offset, size in zip(words[0::4], words[1::4], words[2::4], strict=True)
            }
            index, *_ = words[3].split(".")
            sample = Sample(int(index), *(members[ext] for ext in (self.image_ext, "label", "logits", "json")))
        except (KeyError, ValueError, IndexError) as error:
            wanted = f"{self.image_ext}, label, logits, json"
            raise DataError(f"{self.index}: a sample lacks one of {wanted}: {line[:80]!r}") from error
        if sample.label.size != 4 or sample.logits.size != 2 * self.classes:
            raise DataError(
                f"{self.tar}: expected a 4-byte label and {self.classes} float16 logits, found {sample.label.size} and "
                f"{sample.logits.size} bytes; the shard was written for another label space"
            )
        return sample

    def check(self) -> None:
        """Compare tar, index and record by size and structure; cheap, reads a few blocks.

        Raises:
            DataError: the tar is truncated, or the index disagrees with it.
        """
        last = max((member for s in self.samples() for member in (s.image, s.label, s.logits)), key=lambda m: m.offset)
        size = self.tar.stat().st_size
        if size < last.offset + last.size + len(_END_OF_ARCHIVE) or size % _BLOCK:
            raise DataError(f"{self.tar} is truncated: {size} bytes; synthesize the shard again")
        with self.tar.open("rb") as file:
            file.seek(last.offset - _BLOCK)
            header = file.read(_BLOCK)
            file.seek(-len(_END_OF_ARCHIVE), 2)
            tail = file.read()
        if tail != _END_OF_ARCHIVE:
            raise DataError(f"{self.tar} is truncated: no end-of-archive mark; synthesize the shard again")
        if header[257:262] != b"ustar":
            raise DataError(f"{self.index} does not belong to {self.tar.name}: no member at byte {last.offset}")

    def verify(self) -> None:
        """Compare the tar with the SHA-256 of its record.

        Raises:
            DataError: the bytes differ.
        """
        with self.tar.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise DataError(f"{self.tar}: SHA-256 is {found[:12]}…, its record says {self.sha256[:12]}…")


@dataclass(frozen=True)
class ShardSet:
    """The finished shards of one run, all of one format."""

    shards: tuple[Shard, ...]
    rows: int
    classes: int
    image_ext: str

    @classmethod
    def discover(cls, run: Path, selected: bool = False) -> ShardSet:
        """Find the shards of a run directory that have a record, and check them.

        A shard whose samples were all quarantined is left out. With ``selected`` so are the samples that
        `prism-fast select` rejected, and shards of which none is left.

        Raises:
            DataError: no directory, no finished shard, no sample, a truncated tar, a missing index, mixed formats, or
                no selection that fits the run.
        """
        directory = run / "shards"
        if not directory.is_dir():
            raise DataError(f"{directory} does not exist; give the directory that `prism-fast synthesize` wrote")
        finished = [_open_shard(record) for record in sorted(directory.glob("*.json"))]
        if not finished:
            raise DataError(f"{directory} holds no finished shard (a .tar with its .json record); run synthesize first")
        shards = tuple(shard for shard in finished if shard.rows)
        if not shards:
            raise DataError(f"{directory} holds no sample: all of its {len(finished)} shards were quarantined")
        for one, other in pairwise(shards):
            if (one.classes, one.image_ext) != (other.classes, other.image_ext):
                raise DataError(
                    f"{directory} mixes formats: {one.tar.name} has {one.classes} classes as {one.image_ext}, "
                    f"{other.tar.name} has {other.classes} as {other.image_ext}"
                )
        for shard in shards:
            shard.check()
        shards = _selected(run, shards) if selected else shards
        return cls(shards, sum(shard.kept for shard in shards), shards[0].classes, shards[0].image_ext)

    def digest(self) -> str:
        """SHA-256 over the shards' own hashes and what is rejected of them: the identity of the data set."""
        parts = (shard.sha256 + "".join(f" {i}" for i in sorted(shard.rejected)) for shard in self.shards)
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def _selected(run: Path, shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
    rejected = rejected_samples(run, [shard.sha256 for shard in shards])
    some = (replace(shard, rejected=rejected.get(shard.number, frozenset())) for shard in shards)
    if not (left := tuple(shard for shard in some if shard.kept)):
        raise DataError(f"{run}: its selection rejects every sample; select again with 'prism-fast select {run}'")
    return left


def _open_shard(record: Path) -> Shard:
    tar, index = record.with_suffix(".tar"), record.with_suffix(".idx")
    try:
        data = json.loads(record.read_text())
        shard = Shard(tar, index, int(data["rows"]), int(data["classes"]), str(data["image_ext"]), str(data["sha256"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{record} is not a shard record (rows, classes, image_ext, sha256): {error!r}") from error
    if shard.image_ext not in IMAGE_EXTENSIONS or shard.rows < 0 or shard.classes < 1:
        raise DataError(f"{record}: {shard.rows} rows, {shard.classes} classes as {shard.image_ext!r} cannot be read")
    for path in (tar, index):
        if not path.is_file():
            raise DataError(f"{path} is missing although {record.name} says the shard is finished")
    return shard
