"""One worker of a run: makes the shards that have no record and that nobody else is making."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from prism_fast.compile.load import Compiled, compile_run
from prism_fast.config import RunConfig
from prism_fast.errors import DataError, InputError
from prism_fast.paths import in_store
from prism_fast.synthesis.calibrate import load_or_calibrate, stored_margins
from prism_fast.synthesis.files import create, patience, read_if_there, writing
from prism_fast.synthesis.leases import POLL_S, Leases
from prism_fast.synthesis.maker import ShardMaker
from prism_fast.synthesis.place import Place
from prism_fast.synthesis.rundir import RunDirectory, require_free
from prism_fast.synthesis.sampler import Synthesizer
from prism_fast.synthesis.shards import Record
from prism_fast.synthesis.stop import Stop

_LOG = logging.getLogger(__name__)
#: (images finished, images planned, images a second of this process)
Progress = Callable[[int, int, float], None]
#: Told of every shard that was made.
Finished = Callable[[Record], None]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Summary:
    """What is in the run now; ``made_now``, ``seconds`` and ``images_per_s`` count this worker's sampling alone."""

    images: int
    made_now: int
    quarantined: int
    seconds: float
    images_per_s: float


class MadeWith(BaseModel):
    """``engines.json``: the weights and engines that a run was begun with; its first worker decides for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, str]
    engines: dict[str, str]


class Worker:
    """Models and engines, loaded once, on a claimed run directory.

    Args:
        config: what to make.
        out: the run's directory.
        leases: this worker's.
        store: where compiled engines are kept; the user's own store when not given.
        log: told which engines are built and used.
        stop: asks to stop.

    Raises:
        InputError: bad models, or a directory of another run. EngineError: a named backend cannot run here.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        leases: Leases,
        store: Path | None = None,
        log: Log = _LOG.info,
        stop: Stop | None = None,
    ) -> None:
        self.config, self.leases, self.store, self.log = config, leases, store, log
        self.stop = stop or Stop()
        synthesizer = Synthesizer.load(config)
        self.directory = RunDirectory(out)
        self.directory.claim(config)
        self.directory.clean_temporaries()
        compiled = self._compile(synthesizer)
        run, margins = compiled.synthesizer, out / "margins.json"
        run.margins = leases.once(
            "margins", lambda: stored_margins(run, margins), lambda: load_or_calibrate(run, margins)
        )
        self.maker = ShardMaker(run, self.directory, compiled.digests, self.stop)

    def _compile(self, synthesizer: Synthesizer) -> Compiled:
        """On the engines that the run was begun with, which the first worker chooses or builds."""
        records = self.directory.records().values()
        for record in records:
            self._check_models(record.models, synthesizer.hashes)
        recorded = next((record.engines for record in records), {})
        path = self.directory.path / "engines.json"

        def found() -> Compiled | None:
            begun = _begun_with(path)
            if begun is None:
                return None
            self._check_models(begun.models, synthesizer.hashes)
            return compile_run(synthesizer, begun.engines, self.log, self.store)

        def made() -> Compiled:
            compiled = compile_run(synthesizer, recorded, self.log, self.store)
            self.stop.check()  # a backend that a signal interrupted must not decide for everybody
            begun = MadeWith(models=synthesizer.hashes, engines=compiled.digests)
            with writing(path):
                first = create(path, begun.model_dump_json(indent=1).encode())
            return compiled if first else found() or compiled

        return self.leases.once("engines", found, made)

    def _check_models(self, begun: dict[str, str], hashes: dict[str, str]) -> None:
        if begun != hashes:
            changed = ", ".join(k for k in hashes if begun.get(k) != hashes[k])
            raise InputError(f"{self.directory.path} was begun with other weights ({changed}); choose another --out")

    def make_missing(self, place: Place) -> Iterator[Record]:
        """Records of the shards made here, until every shard has one, whoever made it.

        Raises:
            StoppedError: a signal asked for it. RunError: the disk refused.
        """
        waiting = False
        while missing := self.directory.missing():
            self._check_length()
            made = False
            for record in self.maker.run(self._taken(place.order(missing)), self.config.launch):
                made = True
                self.leases.release(lease_name(record.shard))
                yield record
            self.stop.check()
            if not made:
                if not waiting:
                    self.log(f"waiting for {len(missing)} shards that other workers have in hand")
                waiting = True
                time.sleep(POLL_S * patience(self.directory.path))

    def _check_length(self) -> None:
        if self.directory.layout() != self.maker.layout:
            raise InputError(f"{self.directory.path} was extended meanwhile; start again with its new number of images")

    def make(self, shard: int) -> Record | None:
        """The record of one shard, made here unless there is one; None while it is in another worker's hands."""
        for record in self.maker.run(self._taken([shard]), self.config.launch):
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


def leases_of(config: RunConfig, out: Path, place: Place) -> Leases:
    """The leases of one worker of a run."""
    launch = config.launch
    return Leases(out / "shards", str(place), launch.lease_s, hold_s=launch.hold_s)


def lease_name(shard: int) -> str:
    """The lease of a shard."""
    return f"{shard:06d}"


def _begun_with(path: Path) -> MadeWith | None:
    data = read_if_there(path)
    try:
        return MadeWith.model_validate_json(data) if data is not None else None
    except ValidationError as error:
        raise DataError(f"{path} does not say which engines the run was begun with; delete it and go on") from error


def require_room(config: RunConfig, out: Path) -> None:
    """Refuse to start or go on with a run whose missing images the disk cannot hold.

    Raises:
        InputError: it cannot.
    """
    if in_store(out):
        return
    pixels = config.sampling.height * config.sampling.width * 3
    missing = config.synthesis.images - RunDirectory(out).images_done()
    require_free(out, missing * (pixels + 4096))


def synthesize(
    config: RunConfig,
    out: Path,
    progress: Progress | None = None,
    store: Path | None = None,
    log: Log = _LOG.info,
    place: Place | None = None,
    stop: Stop | None = None,
    finished: Finished | None = None,
) -> Summary:
    """Make a whole run, or what is missing of it, alone or beside other workers on the same directory.

    Args:
        config: what to make.
        out: the run's directory.
        progress: told after every shard.
        store: where compiled engines are kept; the user's own store when not given.
        log: told which engines are built and used.
        place: which of several workers this is.
        stop: asks to stop; see :func:`prism_fast.synthesis.stop.stoppable`.
        finished: told of every shard made here.

    Raises:
        InputError: bad models, or a directory of another run. RunError: the disk refused.
        EngineError: a named backend cannot run here. StoppedError: a signal asked for it.
    """
    require_room(config, out)
    place, stop = place or Place(), stop or Stop()
    made, seconds = 0, 0.0
    with ExitStack() as stack:
        leases = stack.enter_context(leases_of(config, out, place))
        worker = Worker(config, out, leases, store, log, stop)
        with stop.patient():
            for record in worker.make_missing(place):
                made, seconds = made + record.planned, seconds + record.seconds
                if finished:
                    finished(record)
                if progress:
                    progress(worker.directory.images_done(), config.synthesis.images, made / max(seconds, 1e-9))
        worker.directory.finish(config)
    return summarise(worker.directory, made, seconds)


def summarise(directory: RunDirectory, made: int, seconds: float) -> Summary:
    """What is in a finished run, and what was made now."""
    records = directory.records().values()
    return Summary(
        images=sum(r.rows for r in records),
        made_now=made,
        quarantined=sum(len(r.quarantined) for r in records),
        seconds=seconds,
        images_per_s=made / seconds if seconds else 0.0,
    )
