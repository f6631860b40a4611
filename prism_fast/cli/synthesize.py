"""``prism-fast synthesize``."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, RunOutOpt, SetOpt, StoreOpt, echo_json, prepare

if TYPE_CHECKING:
    from prism_fast.synthesis.place import Place


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
    from prism_fast.config import load_config
    from prism_fast.synthesis.stop import stoppable

    place = _place(worker, workers, launch, metrics_port)
    assignments = [*(set_ or ()), *([f"synthesis.images={images}"] if images is not None else [])]
    settings = load_config(config, tuple(assignments))
    prepare()
    from dataclasses import asdict

    from prism_fast.cli.listeners import listening
    from prism_fast.synthesis.launch import Job, start

    with stoppable() as stop:
        quiet = Job(settings, out, workers or 1, store, place, stop=stop)
        with listening(quiet, _called(place, launch), log_json, metrics_port) as job:
            summary = start(launch.value if launch else None, job)
    if launch is Launcher.torchrun and os.environ["RANK"] != "0":
        return
    if json_output:
        echo_json({**asdict(summary), "out": str(out), "run_hash": settings.run_hash()})
    else:
        typer.echo(
            f"{summary.images} images in {out} ({summary.made_now} made now, {summary.images_per_s:.2f} a second, "
            f"{summary.quarantined} quarantined)"
        )


def _place(worker: str | None, workers: int | None, launch: Launcher | None, metrics_port: int | None) -> Place:
    """The worker that this process is, once options that do not go together are refused."""
    from prism_fast.errors import InputError
    from prism_fast.synthesis.place import Place

    if worker is not None and launch is not None:
        raise InputError("--worker is one worker by itself and --launch starts workers; give one of them")
    if workers is not None and launch in (None, Launcher.torchrun):
        raise InputError("--workers is for --launch local, ray and slurm; torchrun has its own --nproc-per-node")
    if launch == Launcher.torchrun and metrics_port is not None:
        raise InputError(
            "--metrics-port is one port and torchrun's ranks share a machine; use --launch local, or --worker i/N with "
            "a port for each"
        )
    return Place.parse(worker) if worker is not None else Place()


def _called(place: Place, launch: Launcher | None) -> str:
    """Who writes the JSON lines: a worker, or the launcher that tells of all its workers' shards."""
    if launch == Launcher.torchrun:
        from prism_fast.synthesis.launch.torchrun import place_of_rank

        return str(place_of_rank())
    return launch.value if launch else str(place)
