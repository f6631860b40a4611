"""Files that are whole or absent, however many processes write them at once; the one place that knows of both storages.

Locally a file is staged as ``NAME.tmp-<host>-<pid>-<random>`` beside its place and gets its name in one step: by a
rename, where the last writer wins, or by a hard link, where the first one does. In an object store a put is that step,
plain or conditional, and nothing is staged.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from prism_base.attempts import is_dead, new_attempt

from prism_fast.errors import RunError
from prism_fast.storage.faults import failpoint
from prism_fast.storage.objects import children, delete, get, put, put_new
from prism_fast.storage.paths import in_store

#: A staged file of another host is taken for abandoned after this long; writing one takes seconds.
ABANDONED_S = 3600.0
_STAGED = ".tmp-"
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)


def staged_name(path: Path, attempt: str | None = None) -> Path:
    """Where ``path`` is written before it gets its name."""
    return path.with_name(f"{path.name}{_STAGED}{attempt or new_attempt()}")


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and flush it to the disk."""
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def make_folder(path: Path) -> None:
    """Make a folder that can be written to; in an object store there are none.

    Raises:
        OSError: that is impossible.
    """
    if in_store(path):
        return
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def patience(path: Path) -> float:
    """How many times longer than on a disk to wait before asking again: an object store is paid by the request."""
    return 20.0 if in_store(path) else 1.0


def sync_directory(path: Path) -> None:
    """Flush a directory's names to the disk; what an object store has answered is durable."""
    if in_store(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names(folder: Path) -> list[str]:
    """Names in a folder, none if it does not exist.

    Raises:
        OSError: it cannot be listed.
    """
    try:
        return children(folder) if in_store(folder) else os.listdir(folder)
    except FileNotFoundError:
        return []


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: there is none, it is a pipe or a device, or it cannot be read.
    """
    if in_store(path):
        return get(path)
    with open(path, "rb", opener=_open_file) as stream:
        return stream.read()


def _open_file(path: str, flags: int) -> int:
    """Open what can be read to its end: whoever opens a pipe without a writer waits for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    try:
        _require_end(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_end(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def _rename(staged: Path, path: Path) -> None:
    """Give a staged file its name; whoever may would rename it over a pipe or a device, even over ``/dev/null``."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode):
            _require_end(path, status)
    os.replace(staged, path)


def require_file(path: Path) -> None:
    """Refuse to give a library's reader, which would wait, a pipe or a device.

    Raises:
        OSError: it is one, or there is nothing.
    """
    _require_end(path, path.stat())


def remove(path: Path) -> None:
    """Delete a file, if there is one.

    Raises:
        OSError: it cannot be deleted.
    """
    if in_store(path):
        delete(path)
    else:
        path.unlink(missing_ok=True)


def parquet_sink(path: Path) -> pa.NativeFile:
    """What pyarrow writes a local file to: given a path, it takes only one in UTF-8."""
    return pa.OSFile(os.fsencode(path), "wb")


def parquet_source(path: Path) -> pa.NativeFile:
    """What pyarrow reads a file from, whose path need not be UTF-8: an object is fetched whole.

    Raises:
        OSError: there is none, or it is a pipe or a device. RunError: the store refused.
    """
    if not in_store(path):
        require_file(path)
        return pa.OSFile(os.fsencode(path), "rb")
    with reading(path):
        return pa.BufferReader(read(path))


@contextmanager
def writing(path: Path, kept: str = "finished shards are kept, ") -> Iterator[None]:
    """Say what to do when the disk refuses ``path``, and what is not lost by it.

    Raises:
        RunError: it did.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; {kept}make room or fix permissions and run the same "
            "command again"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say what to do when ``path`` can be neither read nor listed.

    Raises:
        RunError: it could not.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot read {path}: {error.strerror or error}; nothing is lost, make it readable and run the same "
            "command again"
        ) from error


def read_if_there(path: Path) -> bytes | None:
    """The bytes of a file; None when there is none.

    Raises:
        RunError: it cannot be read.
    """
    with reading(path):
        try:
            return read(path)
        except FileNotFoundError:
            return None


class Draft(Protocol):
    """A file's bytes on the way to its name, which they get whole and at once."""

    def write(self) -> None:
        """Put the bytes where they need only be given the name."""

    def replace(self) -> None:
        """Give them the name; the last of several writers wins."""

    def create(self) -> bool:
        """Give them the name unless it is taken; true when what has it now are these bytes."""

    def discard(self) -> None:
        """Leave nothing behind but what has its name."""


@dataclass(frozen=True)
class _Staged:
    """On a file system: staged beside its place."""

    path: Path
    data: bytes
    durable: bool
    staged: Path

    def write(self) -> None:
        if self.durable:
            write_durably(self.staged, self.data)
        else:
            self.staged.write_bytes(self.data)

    def replace(self) -> None:
        _rename(self.staged, self.path)

    def create(self) -> bool:
        try:
            os.link(self.staged, self.path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_without_links(self.path, self.data)
        return True

    def discard(self) -> None:
        with suppress(OSError):  # the folder itself may be what is wrong
            self.staged.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Held:
    """In an object store: held in memory until it is put."""

    path: Path
    data: bytes

    def write(self) -> None:
        return

    def replace(self) -> None:
        put(self.path, self.data)

    def create(self) -> bool:
        return put_new(self.path, self.data)

    def discard(self) -> None:
        return


def draft(path: Path, data: bytes, durable: bool = True, attempt: str | None = None) -> Draft:
    """The way of ``data`` to the name ``path``, by what its storage can do."""
    return _Held(path, data) if in_store(path) else _Staged(path, data, durable, staged_name(path, attempt))


@contextmanager
def _drafted(path: Path, data: bytes, durable: bool) -> Iterator[Draft]:
    made = draft(path, data, durable)
    try:
        made.write()
        failpoint("file-staged")
        yield made
        failpoint("file-published")
    finally:
        made.discard()


def replace(path: Path, data: bytes, durable: bool = True) -> None:
    """Write ``path``, whole at every moment; the last of several writers wins."""
    with _drafted(path, data, durable) as made:
        made.replace()


def create(path: Path, data: bytes, durable: bool = True) -> bool:
    """Write ``path`` unless it exists; of several processes that try with different bytes, exactly one gets True."""
    with _drafted(path, data, durable) as made:
        return made.create()


def _create_without_links(path: Path, data: bytes) -> bool:
    """The same for file systems like exFAT; here a reader can see a part of the file."""
    try:
        with open(path, "xb") as stream:
            stream.write(data)
    except FileExistsError:
        return False
    return True


@contextmanager
def building(path: Path) -> Iterator[Path]:
    """A local file to write bit by bit, which becomes ``path`` when the block ends without an error."""
    if in_store(path):
        with tempfile.TemporaryDirectory(prefix="prism-fast-") as folder:
            local = Path(folder) / path.name
            yield local
            put(path, local.read_bytes())
        return
    staged = staged_name(path)
    try:
        yield staged
        with open(staged, "r+b") as stream:
            os.fsync(stream.fileno())
        _rename(staged, path)
    finally:
        with suppress(OSError):
            staged.unlink(missing_ok=True)


def is_staged(name: str) -> bool:
    """Whether a file of that name is on the way to another one."""
    return _STAGED in name


def _names_if_any(folder: Path) -> list[str]:
    try:
        return names(folder)
    except OSError:  # whoever needs what lies there will say so
        return []


def abandoned(folder: Path) -> Iterator[Path]:
    """Staged files whose process is dead; those of other hosts when they are old."""
    if in_store(folder):
        return
    for staged in (folder / name for name in sorted(_names_if_any(folder)) if is_staged(name)):
        with suppress(OSError):  # another worker looks too
            attempt = staged.name.rpartition(_STAGED)[2]
            if is_dead(attempt) or time.time() - staged.stat().st_mtime > ABANDONED_S:
                yield staged


def sweep(folder: Path) -> None:
    """Remove what is abandoned."""
    for staged in abandoned(folder):
        with suppress(OSError):
            staged.unlink(missing_ok=True)
