"""Names for tries of a process, and whether the process behind one is no more."""

from __future__ import annotations

import errno
import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path


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
