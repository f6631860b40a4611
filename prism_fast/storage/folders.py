"""A local folder that is whole or absent."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prism_fast.errors import InputError, RunError


def _require_replaceable(out: Path) -> None:
    """Refuse at once what no folder can be renamed to when everything is written."""
    if out.is_symlink():
        what = "a link"
    elif os.path.ismount(out):
        what = "a mount point"
    elif out.exists() and out.samefile(Path.cwd()):
        what = "the current directory"
    else:
        return
    raise InputError(f"{out} is {what}, which cannot be replaced; name a new folder, for example {out / 'export'}")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes ``out`` when the block ends without an error; else nothing is left.

    Raises:
        InputError: ``out`` is not empty, or cannot be replaced. RunError: the disk refused.
    """
    _require_replaceable(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; choose another --out")
    staged = out.with_name(f"{out.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        staged.mkdir(parents=True)
        yield staged
        os.replace(staged, out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}; make room or choose another --out") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
