"""What is to be launched, and what all launchers do: refuse early, show progress, check that nothing is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prism_fast.config import RunConfig
from prism_fast.dataset.layout import Layout
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import RunError
from prism_fast.workers.maker import Generator
from prism_fast.workers.rank import Rank
from prism_fast.workers.share import with_own_gpu
from prism_fast.workers.stop import Stop
from prism_fast.workers.synthesize import Finished, Progress, Summary, require_room, summarise, synthesize
from prism_fast.workers.worker import Log

#: What starts the workers.
LauncherName = Literal["local", "ray", "torchrun", "slurm"]


@dataclass(frozen=True)
class Job:
    """A run, where it is made and by how many.

    ``progress``, ``log``, ``stop`` and ``finished`` belong to the calling process; ``generator`` makes the samples in
    place of the configured models, where workers are not processes of their own.
    """

    config: RunConfig
    out: Path
    workers: int = 1
    store: Path | None = None
    rank: Rank = field(default_factory=Rank)
    progress: Progress | None = None
    log: Log = print
    stop: Stop = field(default_factory=Stop)
    finished: Finished | None = None
    generator: Generator | None = None

    @property
    def layout(self) -> Layout:
        """The run's shards, before any worker has claimed the directory."""
        return Layout(self.config.run_hash(), self.config.synthesis.images, self.config.synthesis.shard_size)

    def elsewhere(self) -> Job:
        """The same job for another process: it may start in another directory, has nobody to tell and sees one GPU."""
        store = self.store.absolute() if self.store else None
        config = with_own_gpu(self.config)
        return Job(config, self.out.absolute(), self.workers, store, generator=self.generator)

    def missing(self) -> list[int]:
        """Shards without a record."""
        done = RunDirectory(self.out).done()
        return [shard for shard in range(self.layout.shards) if shard not in done]

    def images_missing(self) -> int:
        """Images planned for the missing shards."""
        return sum(self.layout.extent(shard)[1] for shard in self.missing())

    def work(self) -> Summary:
        """Be one worker, in this process."""
        return synthesize(
            self.config,
            self.out,
            self.progress,
            self.store,
            self.log,
            self.rank,
            self.stop,
            self.finished,
            self.generator,
        )

    def watched(self, launch: Launch) -> Summary:
        """Refuse what cannot work, launch, and check the outcome.

        Raises:
            InputError: the directory is another run's, or the disk is too small.
            RunError: shards are missing. StoppedError: that is because a signal asked for it.
        """
        directory = RunDirectory(self.out)
        require_room(self.config, self.out)
        directory.check_owner(self.config)
        before, began = self.images_missing(), time.monotonic()
        told = directory.done()

        def watch() -> None:
            self._tell(directory, told)
            if self.progress:
                missing = self.images_missing()
                rate = (before - missing) / (time.monotonic() - began)
                self.progress(self.layout.images - missing, self.layout.images, rate)

        launch(self, watch)
        if missing := self.missing():
            self.stop.check()
            raise RunError(
                f"{len(missing)} of {self.layout.shards} shards of {self.out} are missing, because workers ended; "
                "the same command goes on"
            )
        directory.finish(self.config)
        return summarise(directory, before, time.monotonic() - began)

    def _tell(self, directory: RunDirectory, told: set[int]) -> None:
        """Tell ``finished`` of the shards that are not among ``told`` yet, whoever made them."""
        if self.finished:
            for shard in sorted(directory.done() - told):
                self.finished(directory.record(shard))
                told.add(shard)


#: Starts the workers of a job and returns when they have ended; calls its second argument about once a second.
Launch = Callable[[Job, Callable[[], None]], None]
