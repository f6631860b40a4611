"""The identity of a model: the hash of its files.

Everything that lies in the directory is hashed, also what a link points to (a hub's snapshot is a folder of links), a
download's ``.cache`` and notes: nothing says which files a library will read. Left out are only a folder's own name and
place, links that lead nowhere or back to a folder that holds them, and what is no file (sockets, pipes).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from prism_fast.errors import DataError
from prism_fast.storage.files import replace

#: From this size on a hash is remembered between processes: hashing takes about a second a gigabyte.
WORTH_REMEMBERING = 1 << 28
_CHECKPOINTS = (".safetensors", ".pth", ".pt")
_KEPT = 256
_SETTLED_NS = 2_000_000_000


def content_hash(path: Path, remember_from: int = WORTH_REMEMBERING) -> str:
    """SHA-256 over the names and bytes of a file, or of every file of a directory.

    Names are relative to the directory. A classifier's checkpoint file is hashed with the ``config.json`` beside it.
    Models of ``remember_from`` bytes or more are read once: their hash stays in ``prism-fast/hashes.json`` of the
    user's cache directory as long as size, times and inode of every file are the same.

    Raises:
        DataError: a file or folder cannot be read.
    """
    try:
        files = model_files(path)
        before = _stamp(files)
        large = sum(entry[1] for entry in before) >= remember_from
        remembered = _remembered(path, before) if large else None
        made = remembered or _digest(files)
        if large and not remembered and _stamp(files) == before:
            _remember(path, before, made)
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read: {error.strerror or error}; make it readable"
        ) from error
    return made


def model_files(path: Path) -> list[tuple[str, Path]]:
    """Each file of a model with its name relative to ``path``, in the order in which they are hashed.

    Raises:
        OSError: a folder cannot be listed.
    """
    if path.is_dir():
        found = _below(path, (), tuple(map(_identity, path.resolve().parents)))
        return [("/".join(parts), file) for parts, file in sorted(found)]
    beside = path.with_name("config.json")
    with_config = path.suffix in _CHECKPOINTS and beside.is_file()
    return [(path.name, path), *([(beside.name, beside)] if with_config else [])]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _below(
    folder: Path, parts: tuple[str, ...], above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[tuple[str, ...], Path]]:
    here = _identity(folder)
    if here in above:
        return  # a link back: without end
    for name in os.listdir(folder):
        file = folder / name
        if file.is_dir():
            yield from _below(file, (*parts, name), (*above, here))
        elif file.is_file():
            yield (*parts, name), file


def _digest(files: list[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(os.fsencode(name))
        with open(file, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


_Stamp = tuple[str, int, int, int, int]


def _stamp(files: list[tuple[str, Path]]) -> list[_Stamp]:
    """Name, size, both times and inode; the change time is what no copying tool sets back."""
    states = [(name, file.stat()) for name, file in files]
    return [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in states]


def _cache_file() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "prism-fast" / "hashes.json"


def _summary(stamp: list[_Stamp]) -> str:
    return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()


def _read_cache() -> dict[str, Any]:
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
        found = json.loads(_cache_file().read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _remembered(path: Path, stamp: list[_Stamp]) -> str | None:
    entry = _read_cache().get(str(path.resolve()))
    if not isinstance(entry, dict) or entry.get("stamp") != _summary(stamp):
        return None
    known = entry.get("hash")
    return known if isinstance(known, str) and len(known) == 64 else None


def _remember(path: Path, stamp: list[_Stamp], made: str) -> None:
    """Keep a hash; it is only a cache, so that nothing that goes wrong here matters."""
    if max(max(entry[2:4]) for entry in stamp) > time.time_ns() - _SETTLED_NS:
        return  # written so lately that the next change could have the same times
    known = _read_cache()
    known.pop(str(path.resolve()), None)
    known[str(path.resolve())] = {"stamp": _summary(stamp), "hash": made}
    latest = dict(list(known.items())[-_KEPT:])
    with suppress(OSError, ValueError, RuntimeError):
        file = _cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        replace(file, json.dumps(latest).encode(), durable=False)
