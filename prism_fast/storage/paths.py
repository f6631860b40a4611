"""Where a run lies: on a local path, or at an object store's address such as ``s3://bucket/run``.

Object stores are behind ``universal-pathlib``, whose objects speak pathlib's language, so that only
:mod:`prism_fast.storage.files` need know which of the two it has before it.
"""

from __future__ import annotations

from pathlib import Path

from prism_fast.errors import InputError

#: ``memory`` lasts as long as its process.
SCHEMES = ("s3", "memory")
_MARK = "://"


def in_store(path: Path) -> bool:
    """Whether a path that :func:`run_path` gave is in an object store."""
    return _MARK in str(path)  # pathlib would have folded the slashes


def _require_name(given: str | Path) -> None:
    """An empty name is an unset variable of a shell; pathlib would take it for the current directory."""
    if isinstance(given, str) and not given.strip():
        raise InputError(f"{given!r} names no directory; give a path, or '.' for the current directory")


def _at_home(given: str | Path) -> Path:
    """``~`` is the home directory: a shell leaves that of ``--out=~/run`` to us, and pyarrow would read it so alone."""
    path = Path(given)
    try:
        return path.expanduser()
    except RuntimeError:  # nobody's home
        return path


def run_path(given: str | Path) -> Path:
    """A run directory as the user names it.

    Raises:
        InputError: an empty name, an address that no run can be made at, or a package for it is missing.
    """
    _require_name(given)
    address = str(given)
    scheme, mark, rest = address.partition(_MARK)
    if not mark:
        return _at_home(given)
    if scheme not in SCHEMES or not rest.strip("/"):
        raise InputError(f"{address} is not a place for a run; give a local path, or s3://BUCKET/RUN")
    from prism_fast.storage.objects import open_store

    return open_store(address)


def local_path(given: str | Path) -> Path:
    """A path on this machine.

    Raises:
        InputError: it is an object store's address, or empty.
    """
    _require_name(given)
    if _MARK in str(given):
        raise InputError(
            f"{given} is in an object store, but a local path is needed here; copy the run down first, for example "
            "'aws s3 sync s3://BUCKET/RUN RUN', and give the copy"
        )
    return _at_home(given)
