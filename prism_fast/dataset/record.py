"""The record of a shard: what a finished shard holds. Its presence is the commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import Field, ValidationError

from prism_fast.dataset.sealed import Sealed
from prism_fast.errors import DataError
from prism_fast.storage.files import names, read, reading

_NAME = re.compile(r"[0-9]{6}\.json")
_READERS = 8  # each record is a request to an object store


class Record(Sealed):
    """``NNNNNN.json``: what a finished shard holds. Its presence is the commit.

    ``sha256`` and ``size_bytes`` are the tar's; ``index_sha256`` is empty in records written before there was one.
    """

    shard: int
    rows: int
    sha256: str
    size_bytes: int
    index_sha256: str = ""
    run_hash: str
    models: dict[str, str]
    engines: dict[str, str] = Field(default_factory=dict)
    classes: int
    image_ext: str
    first_index: int
    planned: int
    quarantined: tuple[int, ...]
    objective_before_mean: float | None
    energy_after_mean: float | None
    seconds: float


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        DataError: it is not a record; the message says to delete it. RunError: it cannot be read.
    """
    with reading(path):
        try:
            data = read(path)
        except IsADirectoryError as error:
            raise DataError(f"{path} is a folder, not a shard record; delete it and run the synthesis again") from error
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{path} is not a shard record; delete it and run the synthesis again") from error


def record_files(folder: Path) -> list[Path]:
    """The records of a shards folder, in order.

    Raises:
        RunError: the folder cannot be listed.
    """
    with reading(folder):
        return [folder / name for name in sorted(names(folder)) if _NAME.fullmatch(name)]


def read_records(files: Sequence[Path]) -> list[Record]:
    """Several records, read at once.

    Raises:
        DataError: one is not a record. RunError: one cannot be read.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read_record, files))


def finished_shards(folder: Path) -> dict[int, Record]:
    """Records of a shards folder by shard number.

    Raises:
        DataError: one is not a record. RunError: one cannot be read.
    """
    return {record.shard: record for record in read_records(record_files(folder))}
