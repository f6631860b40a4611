"""From plan rows to committed shards."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prism_fast.config import LaunchConfig, RunConfig
from prism_fast.dataset.plan import differing_row, plan_rows
from prism_fast.dataset.record import Record
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.writer import commit_shard, join_samples, make_record
from prism_fast.errors import DataError, InputError
from prism_fast.labels.load import load_label_space
from prism_fast.models.device import shared_threads
from prism_fast.prompts.row import PlanRow
from prism_fast.storage.faults import failpoint
from prism_fast.synthesis.overlap import pipelined
from prism_fast.synthesis.synthesizer import Made
from prism_fast.workers.encoding import Encoder
from prism_fast.workers.stop import Stop


class Generator(Protocol):
    """What makes samples, in two stages that may overlap; a :class:`~prism_fast.synthesis.synthesizer.Synthesizer`."""

    config: RunConfig
    hashes: dict[str, str]

    @property
    def classes(self) -> int:
        """Length of the logits."""

    def parts(self, rows: Sequence[PlanRow]) -> list[Sequence[PlanRow]]:
        """Plan rows as batches."""

    def denoise(self, rows: Sequence[PlanRow]) -> Any:
        """First stage, of one batch."""

    def finish(self, rows: Sequence[PlanRow], sampled: Any) -> Made:
        """Second stage: the samples."""


@dataclass(frozen=True)
class _Work:
    """One batch of a shard; ``last`` closes it."""

    shard: int
    rows: Sequence[PlanRow]
    last: bool


class ShardMaker:
    """The stages from plan rows to a committed shard: denoise, decode and label, encode and write.

    Args:
        generator: makes the samples.
        directory: a claimed run directory.
        engines: part -> digest of the engine that computes it, for the records.
        stop: looked at before every batch.
    """

    def __init__(
        self,
        generator: Generator,
        directory: RunDirectory,
        engines: Mapping[str, str] | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.generator, self.directory, self.engines = generator, directory, dict(engines or {})
        self.stop = stop or Stop()
        self.layout = directory.layout()  # as claimed: the label file may change meanwhile
        self._plan, self._space = directory.plan(), load_label_space(generator.config.labels)
        self._draws = directory.draws(len(self._space.classes))
        self._encoder = Encoder(generator.config.synthesis)
        self._planned: list[PlanRow] = []
        self._quarantined: list[int] = []
        self._since = time.monotonic()

    def work(self, shards: Iterable[int]) -> Iterator[_Work]:
        """The batches of the given shards."""
        for shard in shards:
            failpoint("shard-begun")
            planned = self._rows(shard)
            parts = self.generator.parts(planned)
            for number, rows in enumerate(parts, 1):
                self.stop.check_batch()
                yield _Work(shard, rows, number == len(parts))

    def _rows(self, shard: int) -> list[PlanRow]:
        """The plan of a shard: what the file says, if that is what the configuration gives, as it is for every run.

        Raises:
            DataError: the plan is damaged.
        """
        start, count = self.layout.extent(shard)
        wanted = plan_rows(self.generator.config, self._space, start, start + count, self._draws)
        if (place := differing_row(self._plan.rows(start, count), wanted)) is not None:
            raise DataError(
                f"{self._plan.path} is damaged: row {start + place} is not what the configuration gives; delete it and "
                "run the same command again"
            )
        return wanted

    def run(self, shards: Iterable[int], launch: LaunchConfig) -> Iterator[Record]:
        """Make and commit the given shards, one after the other.

        Raises:
            StoppedError: a signal asked for it before a shard was finished.
        """
        self._since = time.monotonic()
        self._planned, self._quarantined = [], []  # of a shard that was abandoned
        stages = (self.denoise, self.finish, self.store)
        with self._encoder.threads(), shared_threads(launch.streams):
            for record in pipelined(self.work(shards), stages, launch.pipeline_depth, launch.streams):
                if record is not None:
                    yield record

    def denoise(self, work: _Work) -> tuple[_Work, Any]:
        """First stage."""
        return work, self.generator.denoise(work.rows)

    def finish(self, item: tuple[_Work, Any]) -> tuple[_Work, Made]:
        """Second stage."""
        work, sampled = item
        return work, self.generator.finish(work.rows, sampled)

    def store(self, item: tuple[_Work, Made]) -> Record | None:
        """Third stage; gives the record of the shard that this batch closes."""
        work, made = item
        self._encoder.add(made.samples)
        self._planned += work.rows
        self._quarantined += made.quarantined
        return self._commit(work.shard) if work.last else None

    def _commit(self, shard: int) -> Record:
        samples, planned, quarantined = self._encoder.close_shard(), self._planned, self._quarantined
        self._planned, self._quarantined = [], []
        tar, index = join_samples(samples)
        now = time.monotonic()
        record = make_record(
            shard,
            samples,
            tar,
            index,
            run_hash=self.layout.run_hash,
            models=self.generator.hashes,
            engines=self.engines,
            classes=self.generator.classes,
            image_ext=self.generator.config.synthesis.image_format,
            first_index=self.layout.extent(shard)[0],
            planned=len(planned),
            quarantined=quarantined,
            seconds=round(now - self._since, 3),
        )
        self._since = now
        if self.directory.has(shard):  # another worker was faster: its bytes stay
            return self.directory.record(shard)
        if self.directory.layout() != self.layout:
            raise InputError(f"{self.directory.path} was extended meanwhile; start again with its new number of images")
        commit_shard(self.directory.shards, record, tar, index)
        return record
