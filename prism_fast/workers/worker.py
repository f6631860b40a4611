"""One worker of a run: makes the shards that have no record and that nobody else is making."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from prism_fast.config import RunConfig
from prism_fast.dataset.record import Record
from prism_fast.errors import InputError
from prism_fast.workers.leases import Leases
from prism_fast.workers.maker import ShardMaker
from prism_fast.workers.rank import Rank
from prism_fast.workers.stop import Stop

_LOG = logging.getLogger(__name__)
Log = Callable[[str], None]


class Worker:
    """Makes shards of a claimed run directory with the generator that it is given.

    Args:
        maker: makes and commits single shards.
        leases: this worker's.
        log: told when there is nothing to do but to wait.
        stop: asks to stop.
    """

    def __init__(self, maker: ShardMaker, leases: Leases, log: Log = _LOG.info, stop: Stop | None = None) -> None:
        self.maker, self.leases, self.log, self.stop = maker, leases, log, stop or Stop()
        self.directory, self.launch = maker.directory, maker.generator.config.launch

    def make_missing(self, rank: Rank) -> Iterator[Record]:
        """Records of the shards made here, until every shard has one, whoever made it.

        Raises:
            StoppedError: a signal asked for it. RunError: the disk refused.
        """
        waiting = False
        while missing := self.directory.missing():
            self._check_length()
            made = False
            for record in self.maker.run(self._taken(rank.order(missing)), self.launch):
                made = True
                self.leases.release(lease_name(record.shard))
                yield record
            self.stop.check()
            if not made:
                if not waiting:
                    self.log(f"waiting for {len(missing)} shards that other workers have in hand")
                waiting = True
                self.leases.wait()

    def _check_length(self) -> None:
        if self.directory.layout() != self.maker.layout:
            raise InputError(f"{self.directory.path} was extended meanwhile; start again with its new number of images")

    def make(self, shard: int) -> Record | None:
        """The record of one shard, made here unless there is one; None while it is in another worker's hands."""
        for record in self.maker.run(self._taken([shard]), self.launch):
            self.leases.release(lease_name(shard))
            return record
        return self.directory.record(shard) if self.directory.has(shard) else None

    def _taken(self, shards: list[int]) -> Iterator[int]:
        """Those of ``shards`` that are free when their turn comes."""
        for shard in shards:
            if self.stop.asked:
                return
            if not self.directory.has(shard) and self.leases.take(lease_name(shard)):
                if self.directory.has(shard):  # finished between the listing and now
                    self.leases.release(lease_name(shard))
                else:
                    yield shard


def leases_of(config: RunConfig, out: Path, rank: Rank) -> Leases:
    """The leases of one worker of a run."""
    launch = config.launch
    return Leases(out / "shards", str(rank), launch.lease_s, hold_s=launch.hold_s)


def lease_name(shard: int) -> str:
    """The lease of a shard."""
    return f"{shard:06d}"
