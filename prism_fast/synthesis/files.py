"""Files that are whole or absent, however many processes write them at once, and whose they are while being written.

A file is staged as ``NAME.tmp-<host>-<pid>-<random>`` beside its place and gets its name in one step: by a rename,
where the last writer wins, or by a hard link, where the first one does.
"""

from __future__ import annotations

import errno
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prism_fast.errors import RunError
from prism_fast.synthesis.faults import reach

#: A staged file of another host is taken for abandoned after this long; writing one takes seconds.
ABANDONED_S = 3600.0
_STAGED = ".tmp-"
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)


def _here() -> str:
    """Where process numbers mean what they mean to us: containers may share a host's name but not its processes."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{socket.gethostname()}.{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    return socket.gethostname()


def new_attempt() -> str:
    """A name for one try of this process, which says where it runs."""
    return f"{_here()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def is_dead(attempt: str) -> bool:
    """Whether the process behind an attempt, on this host, is no more; another host's processes cannot be seen."""
    host, _, pid = attempt.rpartition("-")[0].rpartition("-")
    if host != _here() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return error.errno == errno.ESRCH  # EPERM: it is another user's
    return False


def staged_name(path: Path, attempt: str | None = None) -> Path:
    """Where ``path`` is written before it gets its name."""
    return path.with_name(f"{path.name}{_STAGED}{attempt or new_attempt()}")


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and flush it to the disk."""
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Flush a directory's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do when the disk refuses ``path``.

    Raises:
        RunError: it did.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; finished shards are kept, make room or fix permissions "
            "and run the same command again"
        ) from error


@contextmanager
def _staged(path: Path, data: bytes, durable: bool) -> Iterator[Path]:
    staged = staged_name(path)
    try:
        if durable:
            write_durably(staged, data)
        else:
            staged.write_bytes(data)
        reach("file-staged")
        yield staged
        reach("file-published")
    finally:
        with suppress(OSError):
            staged.unlink(missing_ok=True)


def replace(path: Path, data: bytes, durable: bool = True) -> None:
    """Write ``path``, whole at every moment; the last of several writers wins."""
    with _staged(path, data, durable) as staged:
        os.replace(staged, path)


def create(path: Path, data: bytes, durable: bool = True) -> bool:
    """Write ``path`` unless it exists; of several processes that try, exactly one gets True."""
    with _staged(path, data, durable) as staged:
        try:
            os.link(staged, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_without_links(path, data)
    return True


def _create_without_links(path: Path, data: bytes) -> bool:
    """The same for file systems like exFAT; here a reader can see a part of the file."""
    try:
        with open(path, "xb") as stream:
            stream.write(data)
    except FileExistsError:
        return False
    return True


def abandoned(folder: Path) -> Iterator[Path]:
    """Staged files whose process is dead; those of other hosts when they are old."""
    for staged in sorted(folder.glob(f"*{_STAGED}*")):
        with suppress(OSError):  # another worker looks too
            attempt = staged.name.rpartition(_STAGED)[2]
            if is_dead(attempt) or time.time() - staged.stat().st_mtime > ABANDONED_S:
                yield staged


def sweep(folder: Path) -> None:
    """Remove what is abandoned."""
    for staged in abandoned(folder):
        with suppress(OSError):
            staged.unlink(missing_ok=True)
