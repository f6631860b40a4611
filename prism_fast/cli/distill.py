"""``prism-fast distill``."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prism_fast.cli.common import CheckOpt, ConfigArg, JsonOpt, OutOpt, ProgressBars, SetOpt, echo_json, log
from prism_fast.storage.paths import local_path

if TYPE_CHECKING:
    from prism_fast.distillation.task import Result


class Launcher(StrEnum):
    """What starts several ranks of a training."""

    local = "local"
    torchrun = "torchrun"
    slurm = "slurm"


def distill(
    config: ConfigArg,
    run: Annotated[Path, typer.Option("--run", parser=local_path, help="Directory that 'synthesize' wrote.")],
    out: OutOpt,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    check: CheckOpt = None,
    set_: SetOpt = None,
    launch: Annotated[
        Launcher | None, typer.Option("--launch", help="Train with several ranks; see docs/scale.md.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="How many ranks, with local and slurm.")] = 1,
    json_output: JsonOpt = False,
) -> None:
    """Train a student on a synthesized dataset; the same command goes on after an interruption."""
    from prism_fast import distill as train
    from prism_fast import load_config

    settings = load_config(config, set_ or ())
    steps = settings.distill.steps
    with ProgressBars().phase("distill") as progress:
        results = train(
            settings,
            run,
            out,
            device=device,
            check=check,
            launch=launch.value if launch else None,
            workers=workers,
            watch=_shown(steps, progress),
            log=log,
        )
    if launch is Launcher.torchrun and os.environ["RANK"] != "0":
        return
    if json_output:
        echo_json(_described(results[0]) if len(results) == 1 else {"students": [_described(one) for one in results]})
    else:
        for one in results:
            typer.echo(
                f"student in {one.student}: loss {one.loss:.3f}, agrees with the teacher on {100 * one.agreement:.1f} %"
            )


def _shown(steps: int, progress: Callable[[int, int, float | str], None]) -> Callable[[str, dict[str, float]], None]:
    """The progress line of a row: loss, speed, how much of the time the loader was waited for, held-out agreement."""

    def watch(name: str, row: dict[str, float]) -> None:
        looked = row.get("held_out_agreement")
        held_out = "" if looked is None else f", held out {looked:.1%}"
        speed = f"{row['images_per_s']:.3g} images/s, {row['data_wait']:.0%} waiting for data"
        progress(int(row["step"]), steps, f"{name}: loss {row['loss']:.3f}, {speed}{held_out}")

    return watch


def _described(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "student": str(result.student),
        "best": str(result.best) if result.best else None,
        "steps": result.steps,
        "loss": result.loss,
        "agreement": result.agreement,
        "images_per_s": result.images_per_s,
        "data_wait": result.data_wait,
        "resumed_from": result.resumed_from,
    }
