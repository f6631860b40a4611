"""Give a finished shard a place in another run directory: by hard link, else by copy."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from prism_fast.errors import RunError
from prism_fast.storage.files import staged_name, sync_directory


def _copy_durably(source: Path, target: Path) -> None:
    with open(source, "rb") as reading, open(target, "wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        return False
    return True


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name, or copy it where that is impossible; true when it was linked.

    Nothing of ours changes a file in place, so two runs may share it.
    """
    temporary = staged_name(target)
    try:
        if not (linked := _link(source, temporary)):
            _copy_durably(source, temporary)
        os.replace(temporary, target)
    finally:
        with suppress(OSError):  # still there after a failure, and when both were names of one file before
            temporary.unlink()
    return linked


def adopt_shard(source: Path, folder: Path, shard: int) -> bool:
    """Publish a finished shard of another folder: tar and index first, the record last; true when it was linked.

    Raises:
        RunError: the disk refused; a record is there only when its tar and index are.
    """
    name = f"{shard:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        linked = [link_or_copy(source / f"{name}.{ext}", folder / f"{name}.{ext}") for ext in ("tar", "idx")]
        sync_directory(folder)
        linked.append(link_or_copy(source / f"{name}.json", folder / f"{name}.json"))
        sync_directory(folder)
    except OSError as error:
        raise RunError(
            f"cannot write shard {name} in {folder}: {error.strerror or error}; make room or fix permissions and run "
            "the same command again"
        ) from error
    return all(linked)
