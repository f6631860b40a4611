"""Make every shard that has no record yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from prism_fast.compile.load import Compiled, compile_run
from prism_fast.config import RunConfig
from prism_fast.errors import InputError
from prism_fast.synthesis.calibrate import load_or_calibrate
from prism_fast.synthesis.rundir import RunDirectory, require_free
from prism_fast.synthesis.sampler import Synthesizer
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


def make_shard(compiled: Compiled, directory: RunDirectory, plan: pa.Table, shard: int) -> Record:
    """Sample one shard's rows of the plan and commit it."""
    synthesizer = compiled.synthesizer
    config = synthesizer.config
    size = config.synthesis.shard_size
    first = shard * size
    rows = plan.slice(first, size).to_pylist()
    start = time.monotonic()
    made = synthesizer.make(rows)
    tar, index = tar_bytes(made.samples, config.synthesis.image_format, config.synthesis.quality)
    record = make_record(
        shard,
        made.samples,
        tar,
        run_hash=directory.facts()["run_hash"],  # as claimed: the label file may change meanwhile
        models=synthesizer.hashes,
        engines=compiled.digests,
        classes=synthesizer.teacher.config.num_classes,
        image_ext=config.synthesis.image_format,
        first_index=first,
        planned=len(rows),
        quarantined=made.quarantined,
        seconds=round(time.monotonic() - start, 3),
    )
    commit_shard(directory.shards, record, tar, index)
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
    done, plan = directory.records(), directory.plan()
    _check_models(directory, synthesizer.hashes)
    recorded = next(iter(done.values())).engines if done else {}
    compiled = compile_run(synthesizer, recorded, log, store)
    compiled.synthesizer.margins = load_or_calibrate(compiled.synthesizer, out / "margins.json")
    rows = sum(r.planned for r in done.values())
    made, seconds = 0, 0.0
    for shard in range(-(-total // size)):
        if shard in done:
            continue
        record = make_shard(compiled, directory, plan, shard)
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
