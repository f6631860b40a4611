"""Objects, which have no rename and need none: a put is whole or absent by itself."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from prism_fast.errors import InputError


def open_store(address: str) -> Path:
    """The path of an address such as ``s3://bucket/run``; nothing is asked of the store yet.

    Raises:
        InputError: a package is missing.
    """
    try:
        import fsspec
        from upath import UPath

        if address.startswith("s3:"):
            from prism_fast.storage.s3 import S3

            fsspec.register_implementation("s3", S3, clobber=True)
    except ImportError as error:
        raise InputError(
            f"{address} needs {error.name}, which is not installed; pip install 'prism-fast[objects]'"
        ) from error
    # A listing that was kept would hide what other workers have finished since.
    return cast(Path, UPath(address.rstrip("/"), use_listings_cache=False))


def put(path: Path, data: bytes) -> None:
    """Write an object; the last of several writers wins.

    Raises:
        OSError: the store refused.
    """
    _system(path).pipe_file(_key(path), data)


def put_new(path: Path, data: bytes) -> bool:
    """Write an object unless there is one, by a conditional put; true when what is there now is ``data``.

    A put whose answer was lost is repeated by the client and then finds its own object: the content tells.

    Raises:
        OSError: the store refused.
    """
    try:
        _system(path).pipe_file(_key(path), data, mode="create")
    except FileExistsError:
        return _holds(path, data)
    return True


def _holds(path: Path, data: bytes) -> bool:
    try:
        return get(path) == data
    except FileNotFoundError:  # deleted since
        return False


def get(path: Path) -> bytes:
    """The bytes of an object, by one request.

    Raises:
        FileNotFoundError: there is none. OSError: the store refused.
    """
    data: bytes = _system(path).cat_file(_key(path))
    return data


def delete(path: Path) -> None:
    """Delete an object, if there is one; pathlib's ``unlink`` would take its name for a pattern.

    Raises:
        OSError: the store refused.
    """
    with suppress(FileNotFoundError):
        _system(path).rm_file(_key(path))


def children(folder: Path) -> list[str]:
    """Names directly below an address.

    Raises:
        FileNotFoundError: there are none. OSError: the store refused.
    """
    keys: list[str] = _system(folder).ls(_key(folder), detail=False)
    return [key.rstrip("/").rpartition("/")[2] for key in keys]


def _system(path: Path) -> Any:
    return cast(Any, path).fs


def _key(path: Path) -> str:
    return str(cast(Any, path).path)
