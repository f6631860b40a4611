"""Labels of a run's views in files of their own beside its shards: ``RUN/views/NNNNNN.views``, one a shard.

Such a file is a safetensors file, written whole or not at all: ``index`` (n,) int64, the shard's samples in order,
and ``views`` (n, count, size) uint8, each view as :class:`prism_fast.views.codec.ViewCodec` stores it. Its metadata
holds one entry, ``prism-fast``: the document :class:`ViewsRecord`, which says of which shard it is, how the views are
drawn and who labelled them, and the hash of the tensors. Of a shard that was made again it is stale: the shard's hash
tells.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import save

from prism_fast.dataset.layout import Layout
from prism_fast.dataset.record import Record
from prism_fast.dataset.sealed import Sealed
from prism_fast.errors import DataError, InputError
from prism_fast.storage.files import make_folder, names, reading, replace, writing
from prism_fast.views.codec import Records, ViewCodec
from prism_fast.views.draw import ViewRule

FORMAT = 1
_KEY = "prism-fast"
_NAME = re.compile(r"[0-9]{6}\.views")
_LONGEST_HEADER = 1 << 20
_CHUNK = 1 << 20

Index = np.ndarray[Any, np.dtype[np.int64]]


class Labelling(BaseModel):
    """How views are drawn, shown and labelled: of equal ones the labels are equal.

    ``image_size`` is the side that a view is resized to before the teacher sees it; None, in a run that stores views
    with its samples, is the teacher's own. ``top_k`` is None where all logits are stored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    crop_scale: tuple[float, float]
    flip: bool
    image_size: int | None
    classes: int
    top_k: int | None
    teacher: str

    @property
    def rule(self) -> ViewRule:
        """What the views are drawn by."""
        return ViewRule(self.seed, self.crop_scale, self.flip)

    @property
    def codec(self) -> ViewCodec:
        """How their logits are stored."""
        return ViewCodec(self.classes, self.top_k)


class ViewsRecord(Sealed):
    """What a file of views says of itself; ``count`` views of each of ``rows`` samples.

    ``shard_sha256`` is the tar's; ``sha256`` is over the two tensors' bytes, ``index`` first.
    """

    format: Literal[1] = 1
    run_hash: str
    shard: int
    shard_sha256: str
    labelling: Labelling
    count: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class ViewsFile:
    """An existing file of views: its record, and where its tensors begin."""

    path: Path
    record: ViewsRecord
    index_at: int
    views_at: int

    @property
    def stride(self) -> int:
        """Bytes of all views of a sample."""
        return self.record.count * self.record.labelling.codec.size_bytes

    def index(self) -> Index:
        """The samples, in the order of their views (rows,).

        Raises:
            DataError: it was cut short meanwhile. RunError: it cannot be read.
        """
        with _opened(self.path) as stream:
            stream.seek(self.index_at)
            return np.frombuffer(_exactly(stream, self.path, 8 * self.record.rows), "<i8")

    def records(self) -> Records:
        """Every view (rows, count).

        Raises:
            DataError: it was cut short meanwhile. RunError: it cannot be read.
        """
        with _opened(self.path) as stream:
            stream.seek(self.views_at)
            data = _exactly(stream, self.path, self.stride * self.record.rows)
        return np.frombuffer(data, self.record.labelling.codec.dtype).reshape(self.record.rows, self.record.count)

    def check(self) -> None:
        """Compare the tensors with their hash.

        Raises:
            DataError: they have another one. RunError: they cannot be read.
        """
        digest, rows = hashlib.sha256(), self.record.rows
        with _opened(self.path) as stream:
            for start, size in ((self.index_at, 8 * rows), (self.views_at, self.stride * rows)):
                stream.seek(start)
                for piece in _pieces(size):
                    digest.update(_exactly(stream, self.path, piece))
        if digest.hexdigest() != self.record.sha256:
            raise _damaged(self.path, "its labels have another hash than it says")

    def misfit(self, record: Record) -> str | None:
        """Why it is not of a shard with this record; None when it is."""
        own = self.record
        if own.run_hash != record.run_hash:
            return f"{self.path.name} is of run {own.run_hash[:12]}"
        if own.shard != record.shard or own.shard_sha256 != record.sha256:
            return f"{self.path.name} is of a shard {record.shard:06d} that was made again since"
        if own.rows != record.rows or own.labelling.classes != record.classes:
            return f"{self.path.name} has {own.rows} samples of {own.labelling.classes} classes, its shard others"
        return None


def views_folder(run: Path) -> Path:
    """Where a run's files of views are."""
    return run / "views"


def views_path(run: Path, shard: int) -> Path:
    """The views of one shard."""
    return views_folder(run) / f"{shard:06d}.views"


def view_files(run: Path) -> list[Path]:
    """The files of views that a run has, in order.

    Raises:
        RunError: the folder cannot be listed.
    """
    folder = views_folder(run)
    with reading(folder):
        return [folder / name for name in sorted(names(folder)) if _NAME.fullmatch(name)]


def write_views(run: Path, record: Record, labelling: Labelling, index: Index, records: Records) -> Path:
    """Write the views (n, count) of a shard's samples (n,), whole or not at all; equal input gives equal bytes.

    Raises:
        RunError: the disk refused.
    """
    path = views_path(run, record.shard)
    rows, count = records.shape
    views = np.frombuffer(records.tobytes(), np.uint8).reshape(rows, count, labelling.codec.size_bytes)
    samples = index.astype("<i8")
    own = ViewsRecord(
        run_hash=record.run_hash,
        shard=record.shard,
        shard_sha256=record.sha256,
        labelling=labelling,
        count=count,
        rows=rows,
        sha256=hashlib.sha256(samples.tobytes() + views.tobytes()).hexdigest(),
    )
    data = save({"index": samples, "views": views}, {_KEY: own.model_dump_json()})
    with writing(path, kept="finished files of views are kept, "):
        make_folder(path.parent)
        replace(path, data)
    return path


def problem_of_views(path: Path, layout: Layout, record: Record | None) -> str | None:
    """What is wrong with a file of views, every byte of it read; None when it is intact.

    Args:
        path: the file.
        layout: the run's.
        record: of its shard, if that is finished and intact.

    Raises:
        RunError: it cannot be read.
    """
    remedy = "; delete it and run 'prism-fast views' again"
    if not layout.plans(path.stem):
        return f"{path.name} is of none of the plan's {layout.shards} shards; delete it"
    try:
        file = read_views(path)
        file.check()
    except InputError as error:
        return str(error)
    if record is None:
        other = file.record.run_hash != layout.run_hash
        return f"{path.name} is of run {file.record.run_hash[:12]}{remedy}" if other else None
    why = file.misfit(record)
    return f"{why}{remedy}" if why else None


def read_views(path: Path) -> ViewsFile:
    """Open a file of views; its labels are not read.

    Raises:
        DataError: it is missing or damaged. InputError: it is of a later version. RunError: it cannot be read.
    """
    with _opened(path) as stream:
        length = int.from_bytes(_exactly(stream, path, 8), "little")
        if length > _LONGEST_HEADER:
            raise _damaged(path, "its header is none")
        header = _exactly(stream, path, length)
        stream.seek(0, 2)
        size = stream.tell()
    try:
        return _described(path, json.loads(header), 8 + length, size)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, "its header is none") from error


def _described(path: Path, header: dict[str, Any], begin: int, size: int) -> ViewsFile:
    document = json.loads(header["__metadata__"][_KEY])
    if document.get("format") != FORMAT:
        raise InputError(
            f"{path} is of format {document.get('format')!r}, this version reads {FORMAT}; update prism-fast, "
            f"or delete {path.parent}"
        )
    try:
        record = ViewsRecord.model_validate(document)
    except ValidationError as error:
        raise _damaged(path, "what it says of itself has another hash or lacks something") from error
    starts = [begin + header[name]["data_offsets"][0] for name in ("index", "views")]
    made = ViewsFile(path, record, *starts)
    if size != begin + record.rows * (8 + made.stride):
        raise _damaged(path, f"it has {size} bytes")
    return made


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is damaged: {why}; delete it and run 'prism-fast views' again")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with reading(path):
        if not path.is_file():
            raise DataError(f"{path} is missing; 'prism-fast views' makes it")
        stream = cast(BinaryIO, path.open("rb"))
    with stream:
        yield stream


def _exactly(stream: BinaryIO, path: Path, size: int) -> bytes:
    with reading(path):
        data = stream.read(size)
    if len(data) != size:
        raise _damaged(path, "it is cut short")
    return data


def _pieces(size: int) -> Iterator[int]:
    for start in range(0, size, _CHUNK):
        yield min(_CHUNK, size - start)
