"""A content-addressed directory of built engines: added whole or not at all, verified when loaded, shareable.

::

    STORE/<digest of the key>/engine.json    the record, and the files that the backend wrote beside it
    STORE/<digest of the key>/cache/         what a machine keeps for opening it faster: no part of the engine
    STORE/cache/                             what backends keep for building faster
    STORE/.staging/<host>-<pid>-<random>/    a build in progress; renaming it to its digest is the commit
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from prism_base.attempts import is_dead, new_attempt

from prism_engines.caches import FOLDER as CACHE_FOLDER
from prism_engines.errors import EngineError, EngineInputError, EngineMissingError
from prism_engines.record import EngineRecord, Scalar, read_record, require_match, stored_files, sync, write_record
from prism_engines.spec import EngineKey, EngineSpec

_STAGING = ".staging"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def default_store() -> Path:
    """``$PRISM_FAST_STORE``, else ``prism-fast/engines`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        EngineInputError: that is below a home directory, and nobody knows which one.
    """
    if store := os.environ.get("PRISM_FAST_STORE"):
        return _expanded(store)
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "prism-fast" / "engines"


def _expanded(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError as error:  # HOME is unset and this user's number has no name
        raise EngineInputError(
            f"the engine store {given} is below a home directory, and this user has none; set PRISM_FAST_STORE to a "
            "directory"
        ) from error


class Store:
    """Engines under one directory, which need not exist yet. Processes share it without a lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def cache(self) -> Path:
        """Where backends keep what makes the next build faster; all of it may be removed."""
        return self.root / CACHE_FOLDER

    def folder(self, digest: str) -> Path:
        """Where the engine called ``digest`` lies."""
        return self.root / digest

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder to build in, on the store's own file system; it is gone afterwards.

        Raises:
            EngineError: it cannot be made, or the disk became full while it was in use.
        """
        folder = self._new_staging()
        with self._writing():
            folder.mkdir(parents=True)
        try:
            yield folder
        except OSError as error:
            if error.errno in _FULL:
                raise self._refused(error) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(
        self, key: EngineKey, spec: EngineSpec, folder: Path, build_s: float, gate: Mapping[str, Scalar]
    ) -> EngineRecord:
        """Move ``folder``, made by :meth:`staging`, into the store; of identical engines the first one stays.

        Raises:
            EngineInputError: key and spec are of different engines.
            EngineError: the disk refused; the store is as it was.
        """
        require_match(key, spec)
        with self._writing():
            files = stored_files(folder)
            size, now = sum(f.size_bytes for f in files), datetime.now(UTC).isoformat(timespec="seconds")
            record = EngineRecord(key, spec, files, size, build_s, dict(gate), now)
            write_record(record, folder)
            return self._commit(folder, record)

    def _commit(self, folder: Path, record: EngineRecord) -> EngineRecord:
        target = self.folder(record.digest)
        if not self._rename(folder, target):
            if not self._problems(record.digest):
                shutil.rmtree(folder)
                return read_record(target)
            self.remove(record.digest)  # it was damaged
            os.rename(folder, target)
        sync(self.root)
        return record

    @staticmethod
    def _rename(folder: Path, target: Path) -> bool:
        """Whether nothing stood in the way; a directory that is not empty is never replaced."""
        try:
            os.rename(folder, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def find(self, key: EngineKey) -> EngineRecord | None:
        """The engine of exactly this key, or None. Its files are not read; see :meth:`open_files`."""
        try:
            return read_record(self.folder(key.digest))
        except EngineError:  # absent, or to be built anew: ``add`` replaces what is damaged
            return None

    def open_files(self, record: EngineRecord) -> Path:
        """The engine's folder, after comparing every file with the record by size and SHA-256.

        Raises:
            EngineError: a file is missing or changed.
        """
        folder = self.folder(record.digest)
        problem = next(record.problems(folder), None)
        if problem:
            raise EngineError(
                f"{problem}; run 'prism-fast engines prune', which removes the engine, then 'prism-fast build-engines'"
            )
        return folder

    def records(self) -> list[EngineRecord]:
        """Every engine with a readable record, by part and backend."""
        found = []
        for digest in self._digests():
            with suppress(EngineError):  # ``verify`` reports it
                found.append(read_record(self.folder(digest)))
        return sorted(found, key=lambda r: (r.key.part, r.key.backend, r.key.precision, r.created, r.digest))

    def by_prefix(self, prefix: str) -> EngineRecord:
        """The engine whose digest begins with ``prefix``.

        Raises:
            EngineMissingError: none does. EngineInputError: several do.
        """
        found = [r for r in self.records() if r.digest.startswith(prefix)]
        if not found:
            raise EngineMissingError(f"no engine in {self.root} begins with {prefix!r}; see 'prism-fast engines list'")
        if len(found) > 1:
            some = ", ".join(r.digest[: len(prefix) + 8] for r in found[:4])
            raise EngineInputError(f"{len(found)} engines begin with {prefix!r} ({some}); give more of the digest")
        return found[0]

    def verify(self) -> list[tuple[str, str]]:
        """Digest and problem of everything that is damaged; reads every byte of the store."""
        return [(digest, problem) for digest in self._digests() for problem in self._problems(digest)]

    def remove(self, digest: str) -> None:
        """Remove an engine, whole or damaged, at once for everybody who looks.

        Raises:
            EngineMissingError: there is none. EngineError: the disk refused.
        """
        grave = self._new_staging()
        if not self.folder(digest).exists():
            raise EngineMissingError(f"{self.root} holds no engine {digest}; see 'prism-fast engines list'")
        with self._writing():
            grave.parent.mkdir(exist_ok=True)
            os.rename(self.folder(digest), grave)  # needs no room, as a full disk has none
            shutil.rmtree(grave)

    def prune(self, installed: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """Remove damaged engines and what killed builds left; returns names and reasons.

        Args:
            installed: backend -> version. Engines of these backends in another version go too; a backend that is not
                named, or whose version is empty, keeps its engines: they may be another machine's.
        """
        removed = dict(self.verify())
        for record in self.records():
            version = (installed or {}).get(record.key.backend)
            if version and version != record.key.backend_version:
                removed[record.digest] = f"{record.key.backend} is {version}, built with {record.key.backend_version}"
        for digest in removed:
            self.remove(digest)
        return [*removed.items(), *self._prune_staging()]

    def _prune_staging(self) -> Iterator[tuple[str, str]]:
        with self._writing():
            for name in self._staged():
                if is_dead(name):
                    shutil.rmtree(self.root / _STAGING / name)
                    yield name, "its process ended before it was finished"

    def _staged(self) -> list[str]:
        try:
            return sorted(os.listdir(self.root / _STAGING))
        except FileNotFoundError:
            return []

    def _new_staging(self) -> Path:
        return self.root / _STAGING / new_attempt()

    def _digests(self) -> list[str]:
        try:
            return sorted(path.name for path in self.root.iterdir() if _DIGEST.fullmatch(path.name) and path.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EngineInputError(f"cannot read the engine store {self.root}: {error.strerror or error}") from error

    def _problems(self, digest: str) -> list[str]:
        try:
            return list(read_record(self.folder(digest)).problems(self.folder(digest)))
        except EngineError as error:
            return [str(error)]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> EngineError:
        return EngineError(
            f"cannot write to the engine store {self.root}: {error.strerror or error}; stored engines are unharmed, "
            "make room or fix permissions, or choose another store (PRISM_FAST_STORE)"
        )
