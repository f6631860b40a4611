"""Make every shard that has no record yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_fast.compile.load import Compiled, compile_run
from prism_fast.config import LaunchConfig, RunConfig
from prism_fast.errors import InputError
from prism_fast.models.device import shared_threads
from prism_fast.sampling.loop import Sampled
from prism_fast.synthesis.calibrate import load_or_calibrate
from prism_fast.synthesis.pipeline import pipelined
from prism_fast.synthesis.rundir import RunDirectory, require_free
from prism_fast.synthesis.sampler import Made, Row, Synthesizer
from prism_fast.synthesis.shards import Record, commit_shard, make_record, tar_bytes

_LOG = logging.getLogger(__name__)
#: (images finished, images planned, images a second of this process)
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Summary:
    """What a synthesis run made; ``seconds`` and ``images_per_s`` count this call's sampling alone."""

    images: int
    made_now: int
    quarantined: int
    seconds: float
    images_per_s: float


@dataclass(frozen=True)
class _Work:
    """One batch of a shard; ``last`` closes it."""

    shard: int
    rows: Sequence[Row]
    last: bool


class ShardMaker:
    """The stages from plan rows to a committed shard: denoise, decode and label, encode and write."""

    def __init__(self, compiled: Compiled, directory: RunDirectory) -> None:
        self.synthesizer, self.digests, self.directory = compiled.synthesizer, compiled.digests, directory
        self.run_hash = directory.facts()["run_hash"]  # as claimed: the label file may change meanwhile
        self._made: list[Made] = []
        self._planned: list[Row] = []
        self._since = time.monotonic()

    def work(self, shards: Iterable[int]) -> Iterator[_Work]:
        """The batches of the given shards."""
        size, plan = self.synthesizer.config.synthesis.shard_size, self.directory.plan()
        for shard in shards:
            parts = self.synthesizer.parts(plan.slice(shard * size, size).to_pylist())
            for number, rows in enumerate(parts, 1):
                yield _Work(shard, rows, number == len(parts))

    def run(self, shards: Iterable[int], launch: LaunchConfig) -> Iterator[Record]:
        """Make and commit the given shards, one after the other."""
        self._since = time.monotonic()
        stages = (self.denoise, self.finish, self.store)
        with shared_threads(launch.streams):
            for record in pipelined(self.work(shards), stages, launch.pipeline_depth, launch.streams):
                if record is not None:
                    yield record

    def denoise(self, work: _Work) -> tuple[_Work, Sampled]:
        """First stage."""
        return work, self.synthesizer.denoise(work.rows)

    def finish(self, item: tuple[_Work, Sampled]) -> tuple[_Work, Made]:
        """Second stage."""
        work, sampled = item
        return work, self.synthesizer.finish(work.rows, sampled)

    def store(self, item: tuple[_Work, Made]) -> Record | None:
        """Third stage; gives the record of the shard that this batch closes."""
        work, made = item
        self._made.append(made)
        self._planned += work.rows
        if not work.last:
            return None
        whole, planned = Made.join(self._made), self._planned
        self._made, self._planned = [], []
        return self._commit(work.shard, whole, planned)

    def _commit(self, shard: int, made: Made, planned: Sequence[Row]) -> Record:
        config = self.synthesizer.config
        tar, index = tar_bytes(made.samples, config.synthesis.image_format, config.synthesis.quality)
        now = time.monotonic()
        record = make_record(
            shard,
            made.samples,
            tar,
            run_hash=self.run_hash,
            models=self.synthesizer.hashes,
            engines=self.digests,
            classes=self.synthesizer.teacher.config.num_classes,
            image_ext=config.synthesis.image_format,
            first_index=shard * config.synthesis.shard_size,
            planned=len(planned),
            quarantined=made.quarantined,
            seconds=round(now - self._since, 3),
        )
        self._since = now
        commit_shard(self.directory.shards, record, tar, index)
        return record


def _check_models(directory: RunDirectory, hashes: dict[str, str]) -> None:
    for record in directory.records().values():
        if record.models != hashes:
            changed = ", ".join(k for k in hashes if record.models.get(k) != hashes[k])
            raise InputError(f"{directory.path} was begun with other weights ({changed}); choose another --out")


def synthesize(
    config: RunConfig,
    out: Path,
    progress: Progress | None = None,
    store: Path | None = None,
    log: Callable[[str], None] = _LOG.info,
) -> Summary:
    """Make a whole run, or what is missing of it.

    Args:
        config: what to make.
        out: the run's directory.
        progress: told after every shard.
        store: where compiled engines are kept; the user's own store when not given.
        log: told which engines are built and used.

    Raises:
        InputError: bad models, or a directory of another run. RunError: the disk refused.
        EngineError: a named backend cannot run here.
    """
    directory = RunDirectory(out)
    total, size = config.synthesis.images, config.synthesis.shard_size
    pixels = config.sampling.height * config.sampling.width * 3
    require_free(out, total * (pixels + 4096))
    synthesizer = Synthesizer.load(config)
    directory.claim(config)
    directory.clean_temporaries()
    done = directory.records()
    _check_models(directory, synthesizer.hashes)
    recorded = next(iter(done.values())).engines if done else {}
    compiled = compile_run(synthesizer, recorded, log, store)
    compiled.synthesizer.margins = load_or_calibrate(compiled.synthesizer, out / "margins.json")
    rows = sum(r.planned for r in done.values())
    made, seconds = 0, 0.0
    missing = [shard for shard in range(-(-total // size)) if shard not in done]
    for record in ShardMaker(compiled, directory).run(missing, config.launch):
        made, seconds, rows = made + record.planned, seconds + record.seconds, rows + record.planned
        if progress:
            progress(rows, total, made / seconds)
    directory.finish(config)
    records = directory.records().values()
    return Summary(
        sum(r.rows for r in records),
        made,
        sum(len(r.quarantined) for r in records),
        seconds,
        made / seconds if seconds else 0.0,
    )
