"""S3 by ``s3fs``, whose every failure is an ``OSError`` here; imported when a run is at ``s3://``.

s3fs translates what the service answers, but not that there is no answer: no credentials, no such host, a connection
that is refused or breaks off.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import ClientError
from botocore.exceptions import BotoCoreError
from fsspec.asyn import sync_wrapper  # noqa: TID253  (this module is imported late itself)
from s3fs import S3FileSystem


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise OSError(errno.EIO, str(error)) from error
    except OSError as error:
        if _is_taken(error.__cause__):  # not every service says which condition failed, but we only know one
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        raise


def _is_taken(cause: BaseException | None) -> bool:
    answer = getattr(cause, "response", None) or {}
    return answer.get("Error", {}).get("Code") in ("PreconditionFailed", "412")


class S3(S3FileSystem):  # type: ignore[misc]
    """What ``s3://`` means in this process."""

    async def _call_s3(self, *args: Any, **options: Any) -> Any:
        with _translated():
            return await super()._call_s3(*args, **options)

    call_s3 = sync_wrapper(_call_s3)

    async def _lsdir(self, *args: Any, **options: Any) -> Any:
        with _translated():
            return await super()._lsdir(*args, **options)

    async def _cat_file(self, *args: Any, **options: Any) -> Any:
        with _translated():
            return await super()._cat_file(*args, **options)
