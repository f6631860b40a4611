"""``prism-fast synthesize``."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, ProgressBars, RunOutOpt, SetOpt, StoreOpt, echo_json, prepare


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
) -> None:
    """Make a labelled dataset; the same command goes on after an interruption."""
    from prism_fast.config import load_config
    from prism_fast.errors import InputError
    from prism_fast.synthesis.place import Place
    from prism_fast.synthesis.stop import stoppable

    if worker is not None and launch is not None:
        raise InputError("--worker is one worker by itself and --launch starts workers; give one of them")
    if workers is not None and launch in (None, Launcher.torchrun):
        raise InputError("--workers is for --launch local, ray and slurm; torchrun has its own --nproc-per-node")
    place = Place.parse(worker) if worker is not None else Place()
    assignments = [*(set_ or ()), *([f"synthesis.images={images}"] if images is not None else [])]
    settings = load_config(config, tuple(assignments))
    prepare()
    from dataclasses import asdict

    from prism_fast.synthesis.launch import Job, start

    with stoppable() as stop, ProgressBars().phase("synthesize") as progress:
        job = Job(settings, out, workers or 1, store, place, progress, lambda line: typer.echo(line, err=True), stop)
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
