"""Reading parts of many tars with few of them open."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Sequence

from prism_fast.dataset.shard import Shard

_MOST, _LEAST = 64, 2
#: The part of this process's limit that the readers may use together.
_SHARE = 4


def most_open(readers: int) -> int:
    """Files that each of several readers keeps open, at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fitting = _MOST if soft == resource.RLIM_INFINITY else soft // _SHARE // readers
    return max(_LEAST, min(_MOST, fitting))


class Files:
    """Open tars of one reader: those that were read last."""

    def __init__(self, shards: Sequence[Shard], most: int) -> None:
        self._shards, self._most = shards, most
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, place: int, start: int, into: memoryview) -> None:
        """Fill a buffer with bytes of the tar of the shard at a place.

        Raises:
            DataError: they cannot be read.
        """
        try:
            count = os.preadv(self._descriptor(place), [into], start)
        except OSError as error:
            raise self._shards[place].unreadable(error.strerror or error) from error
        if count != len(into):  # a tar cut between two members reads without an error
            raise self._shards[place].unreadable(f"{len(into)} bytes at {start} are cut short")

    def _descriptor(self, place: int) -> int:
        found = self._open.get(place)
        if found is None:
            while len(self._open) >= self._most:
                os.close(self._open.popitem(last=False)[1])
            found = self._open[place] = os.open(self._shards[place].tar, os.O_RDONLY | os.O_CLOEXEC)
        self._open.move_to_end(place)
        return found

    def close(self) -> None:
        """Close them all."""
        while self._open:
            os.close(self._open.popitem()[1])
