"""From classes to committed shards: denoise, decode and label, encode and write, as a run's are made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prism_fast.dataset.sample import Sample
from prism_fast.models.device import shared_threads
from prism_fast.prompt_tools.checking.files import ClassFiles
from prism_fast.prompt_tools.checking.jobs import Job
from prism_fast.prompts.row import PlanRow
from prism_fast.storage.files import names
from prism_fast.synthesis.overlap import pipelined
from prism_fast.synthesis.synthesizer import Made
from prism_fast.workers.encoding import Encoder
from prism_fast.workers.leases import Leases
from prism_fast.workers.maker import Generator
from prism_fast.workers.stop import Stop


@dataclass(frozen=True)
class _Batch:
    """Rows of one class from place ``first`` on; ``last`` closes it."""

    job: Job
    first: int
    rows: Sequence[PlanRow]
    last: bool


class ClassMaker:
    """Makes classes one after the other. A batch holds rows of one class, so that no class's bytes hang on others.

    Args:
        generator: makes the samples.
        files: where they go.
        leases: whoever shares the folder leaves to us what we have in hand.
        stop: looked at before every class.
    """

    def __init__(self, generator: Generator, files: ClassFiles, leases: Leases, stop: Stop) -> None:
        self.generator, self.files, self.leases, self.stop = generator, files, leases, stop
        self.seconds = 0.0
        self._encoder = Encoder(generator.config.synthesis)

    def make(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Those of ``jobs`` that nobody else has in hand or has finished, as they are committed.

        Raises:
            StoppedError: a signal asked for it; the class in hand is finished first. RunError: the disk refused.
        """
        launch, since = self.generator.config.launch, time.monotonic()
        stages = (self._denoise, self._finish, self._store)
        with self._encoder.threads(), shared_threads(launch.streams):
            for job in pipelined(self._batches(self._taken(jobs)), stages, launch.pipeline_depth, launch.streams):
                if job is not None:
                    self.leases.release(lease_name(job))
                    now = time.monotonic()
                    self.seconds, since = self.seconds + now - since, now
                    yield job
        self.stop.check()

    def forget_dead(self) -> None:
        """Remove the leases that killed processes have left; who makes their classes again would, but some are made."""
        for name in sorted(names(self.leases.folder)):
            if name.endswith(".lease") and self.leases.take(lease := name.removesuffix(".lease")):
                self.leases.release(lease)

    def _taken(self, jobs: Sequence[Job]) -> Iterator[Job]:
        for job in jobs:
            if self.stop.asked:
                return
            if not self.files.has(job) and self.leases.take(lease_name(job)):
                if self.files.has(job):  # finished between the look and now
                    self.leases.release(lease_name(job))
                else:
                    yield job

    def _batches(self, jobs: Iterable[Job]) -> Iterator[_Batch]:
        for job in jobs:
            first = 0
            for rows in self.generator.parts(job.rows):
                last = first + len(rows) == len(job.rows)
                yield _Batch(job, first, rows, last)
                first += len(rows)

    def _denoise(self, batch: _Batch) -> tuple[_Batch, Any]:
        return batch, self.generator.denoise(batch.rows)

    def _finish(self, item: tuple[_Batch, Any]) -> tuple[_Batch, Made]:
        batch, sampled = item
        return batch, self.generator.finish(batch.rows, sampled)

    def _store(self, item: tuple[_Batch, Made]) -> Job | None:
        """Gives the class that this batch closes."""
        batch, made = item
        self._encoder.add(list(_placed(batch, made.samples)))
        if not batch.last:
            return None
        self.files.commit(batch.job, self._encoder.close_shard())
        return batch.job


def _placed(batch: _Batch, samples: Sequence[Sample]) -> Iterator[Sample]:
    """Samples numbered by their place in the class; ``meta`` keeps the index of the noise, which senses share.

    So an index alone does not say which row was quarantined, but samples are in the order of the rows.
    """
    left = iter(samples)
    sample = next(left, None)
    for place, row in enumerate(batch.rows, batch.first):
        if sample is not None and (sample.index, sample.meta["prompt"]) == (row.index, row.prompt):
            sense, turn = batch.job.place(place)
            said = {"sense": batch.job.senses[sense], "choices": dict(batch.job.choices[turn])}
            yield replace(sample, index=place, meta=sample.meta | said)
            sample = next(left, None)


def lease_name(job: Job) -> str:
    """The lease of a class."""
    return f"{job.label:06d}"
