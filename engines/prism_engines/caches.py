"""Files that only make the next time faster: absent ones are empty, and those that cannot be written are not kept."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from prism_base.attempts import new_attempt

#: Folder in an engine's own: what a machine keeps beside the engine. It is no part of it, may change and be removed.
FOLDER = "cache"


def cache_file(folder: Path, *names: str) -> Path:
    """A file in ``folder`` for what ``names`` tell apart: a library, its version, a GPU."""
    return folder / "-".join(re.sub(r"[^\w.]+", "_", name) for name in names if name)


def read_cache(file: Path) -> bytes:
    """What was kept; nothing where there is no such file, or it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def keep_cache(file: Path, data: bytes) -> None:
    """Keep ``data``, whole or not at all; of processes that do it at the same time, the last one stays.

    A disk that is full or read only is no error: the next time is as slow as this one.
    """
    attempt = file.with_name(f".{new_attempt()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            attempt.write_bytes(data)
            os.replace(attempt, file)
        finally:
            attempt.unlink(missing_ok=True)
