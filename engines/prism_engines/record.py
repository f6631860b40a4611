"""``engine.json``: what a stored engine is, and whether its files are still what they were.

Read as JSON into typed fields; nothing is ever unpickled.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from prism_engines.caches import FOLDER as CACHE_FOLDER
from prism_engines.errors import EngineError, EngineInputError
from prism_engines.spec import EngineKey, EngineSpec, inputs_json

#: A number or a word about an engine, as JSON has them.
Scalar = bool | int | float | str | None

RECORD_NAME = "engine.json"


@dataclass(frozen=True)
class StoredFile:
    """One file of an engine; ``name`` is its path below the engine's folder."""

    name: str
    size_bytes: int
    sha256: str

    def problem(self, folder: Path) -> str:
        """What is wrong with the file in ``folder``; empty when it is as recorded."""
        path = folder / self.name
        try:
            size = path.stat().st_size
            if not path.is_file():
                return f"{path} is no file"  # whoever opens a pipe waits for ever
            if size != self.size_bytes:
                return f"{path} has {size} bytes, its record says {self.size_bytes}"
            return "" if _sha256(path) == self.sha256 else f"{path} is damaged: its SHA-256 is not the recorded one"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror or error}"


@dataclass(frozen=True)
class EngineRecord:
    """A stored engine: its key and spec, its files, how long it took to build and how its gate went."""

    key: EngineKey
    spec: EngineSpec
    files: tuple[StoredFile, ...]
    size_bytes: int
    build_s: float
    gate: Mapping[str, Scalar]
    created: str

    @property
    def digest(self) -> str:
        """The engine's name in the store."""
        return self.key.digest

    def problems(self, folder: Path) -> Iterator[str]:
        """One line for every file of ``folder`` that is not as recorded."""
        return filter(None, (file.problem(folder) for file in self.files))


def require_match(key: EngineKey, spec: EngineSpec) -> None:
    """Check that a key is the key of a spec.

    Raises:
        EngineInputError: part, precision or inputs differ.
    """
    for name, wanted in (("part", spec.part), ("precision", spec.precision), ("inputs", inputs_json(spec))):
        if getattr(key, name) != wanted:
            raise EngineInputError(f"the key's {name} is {getattr(key, name)!r}, its spec says {wanted!r}")


def stored_files(folder: Path) -> tuple[StoredFile, ...]:
    """Every file below ``folder``, flushed to the disk; what a machine keeps for itself beside them is none."""
    files = []
    kept = folder / CACHE_FOLDER
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and kept not in p.parents):
        sync(path)
        files.append(StoredFile(path.relative_to(folder).as_posix(), path.stat().st_size, _sha256(path)))
    return tuple(files)


def write_record(record: EngineRecord, folder: Path) -> None:
    """Write ``engine.json`` and flush it, and every directory of ``folder``, to the disk."""
    path = folder / RECORD_NAME
    path.write_bytes(_json().dump_json(record, indent=1))
    for one in (path, *(p for p in folder.rglob("*") if p.is_dir()), folder):
        sync(one)


def read_record(folder: Path) -> EngineRecord:
    """Read the record of an engine whose folder is called like its digest.

    Raises:
        EngineError: there is none, or it is not this engine's.
    """
    path = folder / RECORD_NAME
    if not path.is_file():  # whoever opens a pipe waits for ever
        raise EngineError(f"{path} is missing or not an engine's record")
    try:
        record = _json().validate_json(path.read_bytes())
        require_match(record.key, record.spec)
    except (OSError, ValidationError, EngineInputError) as error:
        raise EngineError(f"{path} is missing or not an engine's record") from error
    if record.digest != folder.name:
        raise EngineError(f"{path} is the record of engine {record.digest[:12]}")
    return record


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def _json() -> TypeAdapter[EngineRecord]:
    return TypeAdapter(EngineRecord)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
