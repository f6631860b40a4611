"""From a configuration to a worker, step by step: models, run directory, engines, margins, generator, worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from prism_fast.compile.load import compile_run
from prism_fast.compile.release import release_networks
from prism_fast.config import RunConfig
from prism_fast.dataset.draws import Decision, Reason, draws_name, store_part, stored_part
from prism_fast.dataset.made_with import MadeWith, load_made_with
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import InputError
from prism_fast.models.device import gpu_name
from prism_fast.storage.files import create, writing
from prism_fast.synthesis.calibrate import load_or_calibrate, stored_margins
from prism_fast.synthesis.coverage import drawn
from prism_fast.synthesis.synthesizer import Synthesizer
from prism_fast.workers.leases import Leases
from prism_fast.workers.maker import Generator, ShardMaker
from prism_fast.workers.stop import Stop
from prism_fast.workers.worker import Log, Worker

_LOG = logging.getLogger(__name__)
G = TypeVar("G", bound=Generator)
#: Gives a generator on engines and their digests by part: on those that it is told, if there are any.
Choose = Callable[[Mapping[str, str]], tuple[G, dict[str, str]]]


def assemble(
    config: RunConfig,
    out: Path,
    leases: Leases,
    *,
    store: Path | None = None,
    log: Log = _LOG.info,
    stop: Stop | None = None,
    generator: Generator | None = None,
) -> Worker:
    """A worker on a claimed run directory, ready to make its first shard.

    Args:
        config: what to make.
        out: the run's directory.
        leases: this worker's.
        store: where compiled engines are kept; the user's own store when not given.
        log: told which engines are built and used.
        stop: asks to stop.
        generator: makes the samples as it is; when not given, the configured models do, on the configured engines.

    Raises:
        InputError: bad models, or a directory of another run. EngineError: a named backend cannot run here.
    """
    stop = stop or Stop()
    if generator is not None:
        directory = open_run(config, out, leases, generator.hashes)
        given, engines = agreed_engines(
            directory, leases, generator, lambda recorded: (generator, dict(recorded)), stop
        )
        return Worker(ShardMaker(given, directory, engines, stop), leases, log, stop)
    eager = Synthesizer.load(config)
    directory = open_run(config, out, leases, eager.hashes)

    def compiled(recorded: Mapping[str, str]) -> tuple[Synthesizer, dict[str, str]]:
        found = compile_run(eager, recorded, log, store)
        return found.synthesizer, found.digests

    gpu = gpu_name(config.sampling.device)
    synthesizer, engines = agreed_engines(directory, leases, eager, compiled, stop, gpu)
    release_networks(synthesizer, engines)
    synthesizer.margins = agreed_margins(directory, leases, synthesizer)
    return Worker(ShardMaker(synthesizer, directory, engines, stop), leases, log, stop)


def open_run(config: RunConfig, out: Path, leases: Leases, hashes: Mapping[str, str]) -> RunDirectory:
    """The run directory, made or found, without what dead attempts left in it.

    Raises:
        InputError: it belongs to another run, was begun with other weights than ``hashes``, or cannot be written.
    """
    directory = RunDirectory(out)
    directory.claim(config, agreed_draws(config, directory, leases))
    directory.clean_temporaries()
    for record in directory.records().values():
        _require_models(directory, record.models, hashes)
    return directory


def agreed_draws(config: RunConfig, directory: RunDirectory, leases: Leases) -> tuple[Decision, ...]:
    """What is decided of the rows of a run that is to begin: to cover, which prompts; one worker does it.

    Raises:
        InputError: the directory is another run's, or holds something else. RunError: the disk refused.
    """
    if config.prompts.select == "stratified" or directory.exists():
        return ()
    directory.check_owner(config)
    reason = Reason(run_hash=config.run_hash(), towards="coverage of prompts", images=config.synthesis.images)

    def made() -> Decision:
        (part,) = drawn(config).parts
        with writing(directory.path / draws_name(0)):
            return store_part(directory.path, part, reason)

    return (leases.once("draws", lambda: stored_part(directory.path, 0, reason), made),)


def agreed_engines(
    directory: RunDirectory, leases: Leases, eager: Generator, choose: Choose[G], stop: Stop, gpu: str | None = None
) -> tuple[G, dict[str, str]]:
    """The run's generator on the engines that the run was begun with, which its first worker chooses or builds.

    Args:
        directory: the claimed run.
        leases: this worker's: one chooses while the others wait.
        eager: the generator before it has engines; its weights are the run's.
        choose: gives the generator on engines and which these are (part -> digest), on those that it is told if any.
        stop: looked at before a choice is made everybody's.
        gpu: what kind of GPU computes it; None for a processor.

    Raises:
        InputError: the run was begun with other weights, or on another kind of GPU. EngineError: a named backend cannot
            run here.
    """
    recorded = next((record.engines for record in directory.records().values()), {})
    path = directory.path / "engines.json"

    def found() -> tuple[G, dict[str, str]] | None:
        begun = load_made_with(path)
        if begun is None:
            return None
        _require_models(directory, begun.models, eager.hashes)
        _require_gpu(directory, begun.gpu, gpu)
        return choose(begun.engines)

    def made() -> tuple[G, dict[str, str]]:
        generator, engines = choose(recorded)
        stop.check()  # a backend that a signal interrupted must not decide for everybody
        begun = MadeWith(models=eager.hashes, engines=engines, gpu=gpu)
        with writing(path):
            first = create(path, begun.model_dump_json(indent=1, exclude_none=True).encode())
        return (generator, engines) if first else found() or (generator, engines)

    return leases.once("engines", found, made)


def agreed_margins(directory: RunDirectory, leases: Leases, synthesizer: Synthesizer) -> dict[int, float]:
    """The run's margins by class, which one worker calibrates while the others wait for it."""
    path = directory.path / "margins.json"
    return leases.once(
        "margins", lambda: stored_margins(synthesizer, path), lambda: load_or_calibrate(synthesizer, path)
    )


def _require_models(directory: RunDirectory, begun: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    if begun != hashes:
        changed = ", ".join(k for k in hashes if begun.get(k) != hashes[k])
        raise InputError(f"{directory.path} was begun with other weights ({changed}); choose another --out")


def _require_gpu(directory: RunDirectory, begun: str | None, gpu: str | None) -> None:
    if begun is not None and begun != gpu:
        raise InputError(
            f"{directory.path} was begun on {begun}, and here {gpu or 'a processor'} would go on, which rounds "
            "otherwise; go on where it was begun, or choose another --out"
        )
