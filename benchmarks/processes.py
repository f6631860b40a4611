"""What the kernel says of a process and of those that it started."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import harness


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, _text(children).split())
    return found


def field(pid: int, file: str, name: str) -> int:
    """A number that a file of ``/proc/PID`` gives a name; 0 when the process has ended."""
    _, _, rest = _text(Path(f"/proc/{pid}/{file}")).partition(name)
    return int(rest.split()[0]) if rest else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def read_bytes() -> int:
    """Bytes that this process and its descendants have read so far, from the disk or from the page cache."""
    return sum(field(pid, "io", "rchar:") for pid in tree(os.getpid()))


def peak_bytes() -> int:
    """This process's peak resident memory, and what its descendants now have of their own."""
    kinds, others = ("Private_Clean:", "Private_Dirty:"), tree(os.getpid())[1:]
    return harness.peak_rss_bytes() + 1024 * sum(field(pid, "smaps_rollup", kind) for pid in others for kind in kinds)
