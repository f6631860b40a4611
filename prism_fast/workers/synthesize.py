"""Make a whole run, or what is missing of it, in this process."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prism_fast.config import RunConfig
from prism_fast.dataset.record import Record
from prism_fast.dataset.run_directory import RunDirectory, require_free
from prism_fast.errors import RunError
from prism_fast.labels.load import load_label_space
from prism_fast.storage.paths import in_store
from prism_fast.views.codec import ViewCodec
from prism_fast.workers.assembly import assemble
from prism_fast.workers.maker import Generator
from prism_fast.workers.rank import Rank
from prism_fast.workers.stop import Stop
from prism_fast.workers.worker import Log, leases_of

_LOG = logging.getLogger(__name__)
#: (images finished, images planned, images a second of this process)
Progress = Callable[[int, int, float], None]
#: Told of every shard that was made.
Finished = Callable[[Record], None]


@dataclass(frozen=True)
class Summary:
    """What is in the run now; ``made_now``, ``seconds`` and ``images_per_s`` count this worker's sampling alone."""

    images: int
    made_now: int
    quarantined: int
    seconds: float
    images_per_s: float


def synthesize(
    config: RunConfig,
    out: Path,
    progress: Progress | None = None,
    store: Path | None = None,
    log: Log = _LOG.info,
    rank: Rank | None = None,
    stop: Stop | None = None,
    finished: Finished | None = None,
    generator: Generator | None = None,
) -> Summary:
    """Make a whole run, or what is missing of it, alone or beside other workers on the same directory.

    Args:
        config: what to make.
        out: the run's directory.
        progress: told after every shard.
        store: where compiled engines are kept; the user's own store when not given.
        log: told which engines are built and used.
        rank: which of several workers this is.
        stop: asks to stop; see :func:`prism_fast.workers.stop.stoppable`.
        finished: told of every shard made here.
        generator: makes the samples in place of the configured models.

    Raises:
        InputError: bad models, or a directory of another run.
        RunError: the disk refused, or every sample of the run was quarantined.
        EngineError: a named backend cannot run here. StoppedError: a signal asked for it.
    """
    require_room(config, out)
    rank, stop = rank or Rank(), stop or Stop()
    made, seconds = 0, 0.0
    with leases_of(config, out, rank) as leases:
        worker = assemble(config, out, leases, store=store, log=log, stop=stop, generator=generator)
        with stop.patient():
            for record in worker.make_missing(rank):
                made, seconds = made + record.planned, seconds + record.seconds
                if finished:
                    finished(record)
                if progress:
                    progress(worker.directory.images_done(), config.synthesis.images, made / max(seconds, 1e-9))
        worker.directory.finish(config)
    return summarise(worker.directory, made, seconds)


def summarise(directory: RunDirectory, made: int, seconds: float) -> Summary:
    """What is in a finished run, and what was made now.

    Raises:
        RunError: nothing is in it.
    """
    records = directory.records().values()
    if not any(r.rows for r in records):
        lost = sum(len(r.quarantined) for r in records)
        raise RunError(
            f"{directory.path} holds no image: all {lost} were quarantined, because they did not stay finite; check "
            "models.diffusion, sampling.dtype and guidance.scale, and choose another --out"
        )
    return Summary(
        images=sum(r.rows for r in records),
        made_now=made,
        quarantined=sum(len(r.quarantined) for r in records),
        seconds=seconds,
        images_per_s=made / seconds if seconds else 0.0,
    )


def require_room(config: RunConfig, out: Path) -> None:
    """Refuse to start or go on with a run whose missing images the disk cannot hold.

    Raises:
        InputError: it cannot.
    """
    if in_store(out):
        return
    pixels = math.prod(config.stored_size) * 3
    classes = len(load_label_space(config.labels).classes)
    views = config.views.count * ViewCodec.of(classes, config.views.top_k).size_bytes
    missing = config.synthesis.images - RunDirectory(out).images_done()
    require_free(out, missing * (pixels + views + 4096))
