"""``prism-fast synthesize``."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, RunOutOpt, SetOpt, StoreOpt, echo_json, failure

if TYPE_CHECKING:
    from prism_fast.workers.rank import Rank


class Launcher(StrEnum):
    """What starts the workers."""

    local = "local"
    ray = "ray"
    torchrun = "torchrun"
    slurm = "slurm"


def synthesize(
    config: ConfigArg,
    out: RunOutOpt,
    images: Annotated[
        int | None, typer.Option("--images", help="Number of images; overrides the configuration.")
    ] = None,
    store: StoreOpt = None,
    set_: SetOpt = None,
    launch: Annotated[
        Launcher | None, typer.Option("--launch", help="Start several workers; see docs/scale.md.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="How many, with local, ray and slurm; default: 1.")
    ] = None,
    worker: Annotated[
        str | None, typer.Option("--worker", help="Be worker i/N of a run on a shared directory, for example 2/8.")
    ] = None,
    json_output: JsonOpt = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Standard error in JSON, an object a log line and a finished shard.")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=1, max=65535, help="Serve Prometheus metrics on this port.")
    ] = None,
) -> None:
    """Make a labelled dataset; the same command goes on after an interruption."""
    from prism_fast import load_config
    from prism_fast import synthesize as make
    from prism_fast.cli.listeners import listening
    from prism_fast.dataset.run_directory import RunDirectory
    from prism_fast.workers.stop import stoppable

    failure.json = log_json
    rank = _rank(worker, workers, launch, metrics_port)
    assignments = [*(set_ or ()), *([f"synthesis.images={images}"] if images is not None else [])]
    settings = load_config(config, assignments)
    planned = settings.synthesis.images
    with stoppable() as stop, listening(out, planned, _called(rank, launch), log_json, metrics_port) as told:
        summary = make(
            settings,
            out,
            store=store,
            launch=launch.value if launch else None,
            workers=workers or 1,
            rank=rank,
            progress=told.progress,
            finished=told.finished,
            log=told.log,
            stop=stop,
        )
    if launch is Launcher.torchrun and os.environ["RANK"] != "0":
        return
    if json_output:
        from dataclasses import asdict

        echo_json({**asdict(summary), "out": str(out), "run_hash": RunDirectory(out).layout().run_hash})
    else:
        typer.echo(
            f"{summary.images} images in {out} ({summary.made_now} made now, {summary.images_per_s:.2f} a second, "
            f"{summary.quarantined} quarantined)"
        )


def _rank(worker: str | None, workers: int | None, launch: Launcher | None, metrics_port: int | None) -> Rank:
    """The worker that this process is, once options that do not go together are refused."""
    from prism_fast.errors import InputError
    from prism_fast.workers.rank import Rank

    if worker is not None and launch is not None:
        raise InputError("--worker is one worker by itself and --launch starts workers; give one of them")
    if workers is not None and launch in (None, Launcher.torchrun):
        raise InputError("--workers is for --launch local, ray and slurm; torchrun has its own --nproc-per-node")
    if launch == Launcher.torchrun and metrics_port is not None:
        raise InputError(
            "--metrics-port is one port and torchrun's ranks share a machine; use --launch local, or --worker i/N with "
            "a port for each"
        )
    return Rank.parse(worker) if worker is not None else Rank()


def _called(rank: Rank, launch: Launcher | None) -> str:
    """Who writes the JSON lines: a worker, or the launcher that tells of all its workers' shards."""
    if launch == Launcher.torchrun:
        from prism_fast.workers.rank import rank_of_torchrun

        return str(rank_of_torchrun())
    return launch.value if launch else str(rank)
