"""Read a finished shard: the one reader of its samples.

Three files make a shard: ``NNNNNN.tar``, its DALI index ``NNNNNN.idx``, which says where in the tar each part of a
sample lies, and its record ``NNNNNN.json``, which is written last. A tar without a record does not exist for us.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from prism_fast.dataset.record import Record
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.tar_scan import Member, hash_only
from prism_fast.errors import DataError

Logits = np.ndarray[Any, np.dtype[np.float16]]
_BLOCK = 512
_END_OF_ARCHIVE = bytes(2 * _BLOCK)


def decode_image(data: bytes) -> torch.Tensor:
    """An encoded image, uint8 (3, h, w); Pillow gives the interpreter's lock back meanwhile."""
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class Entry:
    """One sample's line of an index: where its parts lie in the tar; ``meta`` is the ``.json``.

    ``views`` are the teacher's logits of its views, in a run that stores them with the sample.
    """

    index: int
    image: Member
    label: Member
    logits: Member
    meta: Member
    views: Member | None = None


@dataclass(frozen=True)
class Shard:
    """A finished shard of a folder and its record.

    The samples of ``rejected`` indices are not read; of ``only`` some indices, no others are.
    """

    folder: Path
    record: Record
    rejected: frozenset[int] = frozenset()
    only: frozenset[int] | None = None

    @property
    def name(self) -> str:
        """What its three files are called."""
        return f"{self.record.shard:06d}"

    @property
    def tar(self) -> Path:
        """The samples."""
        return self.folder / f"{self.name}.tar"

    @property
    def index(self) -> Path:
        """Where in the tar each part of a sample lies."""
        return self.folder / f"{self.name}.idx"

    @property
    def kept(self) -> int:
        """Number of samples that are read."""
        return self.record.rows - len(self.rejected) if self.only is None else len(self.only)

    @property
    def whole(self) -> bool:
        """Whether every sample is read."""
        return not self.rejected and self.only is None

    def reads(self, index: int) -> bool:
        """Whether a sample of the shard is read."""
        return index not in self.rejected if self.only is None else index in self.only

    def without(self, rejected: frozenset[int]) -> Shard:
        """The same shard without some indices."""
        return replace(self, rejected=rejected)

    def keeping(self, only: frozenset[int]) -> Shard:
        """These of the samples that are read, and no others."""
        return replace(self, only=only)

    def entries(self, places: Sequence[int] | None = None) -> list[Entry]:
        """Every sample that is not rejected, in order; or those at these places among them, 0 to ``kept`` - 1.

        Without rejected samples only the lines of ``places`` are parsed: of a large shard a few cost little.

        Raises:
            DataError: the index is malformed, or does not belong to this record.
        """
        lines = self._lines(self._listed())
        if places is None:
            return [entry for _, entry in self._kept(lines)]
        if not self.whole:
            kept = self._kept(lines)
            return [kept[place][1] for place in places]
        return [self._entry(lines[place]) for place in places]

    def _listed(self) -> bytes:
        try:
            return self.index.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{self.index} cannot be read ({reason}); 'prism-fast verify' says what to do") from error

    def _lines(self, listed: bytes) -> list[str]:
        """The index's line of each sample, unparsed."""
        rows = self.record.rows
        try:
            lines = listed.decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.index} is no text ({error}); 'prism-fast verify' says what to do") from error
        if not lines or lines[0].split() != ["v1.2", str(rows)]:
            found = lines[0] if lines else "an empty file"
            raise DataError(f"{self.index}: expected the header 'v1.2 {rows}', found {found!r}; rebuild the shard")
        if len(lines) != rows + 1:
            raise DataError(f"{self.index}: expected {rows} samples, found {len(lines) - 1}; rebuild the shard")
        return lines[1:]

    def _kept(self, lines: Sequence[str]) -> list[tuple[str, Entry]]:
        entries = [(line, self._entry(line)) for line in lines]
        return [(line, entry) for line, entry in entries if self.reads(entry.index)]

    def _entry(self, line: str) -> Entry:
        words, extension = line.split(), self.record.image_ext
        try:
            members = {
                ext: Member(name, int(offset), int(size))
                for ext, offset, size, name in zip(words[0::4], words[1::4], words[2::4], words[3::4], strict=True)
            }
            if any(member.offset < _BLOCK or member.size < 0 for member in members.values()):
                raise ValueError("a place outside of the tar")
            index, *_ = words[3].split(".")
            image, label, logits, meta = (members[ext] for ext in (extension, "label", "logits", "json"))
            entry = Entry(int(index), image, label, logits, meta, members.get("views"))
        except (KeyError, ValueError, IndexError) as error:
            wanted = f"{extension}, label, logits, json"
            raise DataError(f"{self.index}: a sample lacks one of {wanted}: {line[:80]!r}") from error
        if entry.label.size != 4 or entry.logits.size != 2 * self.record.classes:
            raise DataError(
                f"{self.tar}: expected a 4-byte label and {self.record.classes} float16 logits, found "
                f"{entry.label.size} and {entry.logits.size} bytes; the shard was written for another label space"
            )
        return entry

    @contextmanager
    def open(self) -> Iterator[ShardReader]:
        """The parts of its samples, while inside.

        Raises:
            DataError: the tar cannot be opened.
        """
        try:
            stream = self.tar.open("rb")
        except OSError as error:
            raise self.unreadable(error) from error
        with stream:
            yield ShardReader(self, cast(BinaryIO, stream))

    def samples(self) -> Iterator[Sample]:
        """Every sample that is not rejected, decoded, in order.

        Raises:
            DataError: the shard cannot be read; no sample of a damaged one is taken for whole.
        """
        with self.open() as reader:
            for entry in self.entries():
                yield reader.sample(entry)

    def decoded(self, entry: Entry, data: bytes) -> torch.Tensor:
        """A sample's image from its bytes, uint8 (3, h, w).

        Raises:
            DataError: they are no image.
        """
        try:
            return decode_image(data)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise self.unreadable(f"sample {entry.index} is no {self.record.image_ext}: {error}") from error

    def unreadable(self, error: object) -> DataError:
        """The error to raise when a part cannot be read."""
        return DataError(f"{self.tar} cannot be read ({error}); 'prism-fast verify' says what to do")

    def check(self) -> None:
        """Compare tar, index and record by size and structure, the index by its hash; reads a few blocks of the tar.

        Raises:
            DataError: a file is missing, the tar is truncated or grew, or the index disagrees with it or its record.
        """
        for path in (self.tar, self.index):
            if not path.is_file():
                raise DataError(f"{path} is missing although {self.name}.json says the shard is finished")
        listed = self._listed()
        as_recorded = self.record.index_sha256 == hashlib.sha256(listed).hexdigest()
        lines = self._lines(listed)
        # Lines that have the recorded hash are as they were written; parsing a million takes a quarter of a minute.
        entries = map(self._entry, {lines[0], lines[-1]} if as_recorded else lines)
        members = (m for e in entries for m in (e.image, e.label, e.logits, e.views) if m)
        last = max(members, key=lambda member: member.offset)
        size = self.tar.stat().st_size
        if size < last.offset + last.size + len(_END_OF_ARCHIVE) or size % _BLOCK:
            raise DataError(f"{self.tar} is truncated: {size} bytes; synthesize the shard again")
        if size != self.record.size_bytes:
            wanted = f"{size} bytes, its record says {self.record.size_bytes}"
            raise DataError(f"{self.tar} was changed: {wanted}; synthesize the shard again")
        with self.tar.open("rb") as file:
            file.seek(last.offset - _BLOCK)
            header = file.read(_BLOCK)
            file.seek(-len(_END_OF_ARCHIVE), 2)
            tail = file.read()
        if tail != _END_OF_ARCHIVE:
            raise DataError(f"{self.tar} is truncated: no end-of-archive mark; synthesize the shard again")
        if header[257:262] != b"ustar":
            raise DataError(f"{self.index} does not belong to {self.tar.name}: no member at byte {last.offset}")
        if self.record.index_sha256 and not as_recorded:
            raise DataError(f"{self.index} differs from its record; 'prism-fast verify' says what to do")

    def verify(self) -> None:
        """Compare the tar with the SHA-256 of its record.

        Raises:
            DataError: the bytes differ, or cannot be read.
        """
        try:
            found = hash_only(self.tar)
        except OSError as error:
            raise self.unreadable(error.strerror or error) from error
        if found != self.record.sha256:
            said = f"SHA-256 is {found[:12]}…, its record says {self.record.sha256[:12]}…"
            raise DataError(f"{self.tar} is damaged: {said}; 'prism-fast verify' says what to do")


class ShardReader:
    """Random access to the parts of an open shard's samples.

    Raises (every method):
        DataError: the part cannot be read, or is not what its extension says.
    """

    def __init__(self, shard: Shard, stream: BinaryIO) -> None:
        self._shard, self._stream = shard, stream

    def image_bytes(self, entry: Entry) -> bytes:
        """The encoded image."""
        return self._read(entry.image)

    def image(self, entry: Entry) -> torch.Tensor:
        """The decoded image, uint8 (3, h, w)."""
        return self._shard.decoded(entry, self._read(entry.image))

    def label(self, entry: Entry) -> int:
        """The class."""
        return int(np.frombuffer(self._read(entry.label), "<i4")[0])

    def logits(self, entry: Entry) -> Logits:
        """The teacher's logits, float16 (classes,)."""
        return np.frombuffer(self._read(entry.logits), "<f2")

    def meta(self, entry: Entry) -> dict[str, Any]:
        """What the ``.json`` says: prompt, energies and so on."""
        try:
            data: dict[str, Any] = json.loads(self._read(entry.meta))
        except ValueError as error:
            raise self._shard.unreadable(f"sample {entry.index} has no JSON: {error}") from error
        return data

    def sample(self, entry: Entry) -> Sample:
        """All of it, decoded."""
        logits = torch.from_numpy(self.logits(entry).astype(np.float32))
        return Sample(entry.index, self.image(entry), self.label(entry), logits, self.meta(entry))

    def _read(self, member: Member) -> bytes:
        try:
            self._stream.seek(member.offset)
            data = self._stream.read(member.size)
        except OSError as error:
            raise self._shard.unreadable(error.strerror or error) from error
        if len(data) != member.size:  # a tar cut between two members reads without an error
            raise self._shard.unreadable(f"{member.name} is cut short")
        return data
