"""Faults by name: die, or be refused by the disk, at one exact point of the protocol. Does nothing unless armed.

Armed by ``PRISM_FAST_FAULT=POINT[@NUMBER]=WHAT``: at the NUMBER-th time (the first, if not given) that this process
reaches POINT, it gets the signal WHAT (``SIGKILL``), or an ``OSError`` of that name is raised (``ENOSPC``).
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

VARIABLE = "PRISM_FAST_FAULT"
#: Every point, in the order in which a run first comes to it.
POINTS = (
    "file-staged",
    "file-published",
    "plan-written",
    "lease-taken",
    "shard-begun",
    "tar-written",
    "tar-renamed",
    "index-written",
    "index-renamed",
    "record-written",
    "before-record",
    "after-record",
    "committed",
    "lease-released",
    "manifest-written",
    "card-written",
)

_counts: Counter[str] = Counter()


def failpoint(point: str) -> None:
    """Say that ``point`` is reached."""
    if armed := os.environ.get(VARIABLE):
        _strike(point, armed)


def _strike(point: str, armed: str) -> None:
    where, _, what = armed.partition("=")
    name, _, number = where.partition("@")
    if point != name:
        return
    _counts[point] += 1
    if _counts[point] != int(number or 1):
        return
    if what.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[what])
    else:
        code = getattr(errno, what)
        raise OSError(code, os.strerror(code))
