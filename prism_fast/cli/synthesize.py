"""``prism-fast synthesize``."""

from __future__ import annotations

from typing import Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, OutOpt, ProgressBars, SetOpt, StoreOpt, echo_json, prepare


def synthesize(
    config: ConfigArg,
    out: OutOpt,
    images: Annotated[
        int | None, typer.Option("--images", help="Number of images; overrides the configuration.")
    ] = None,
    store: StoreOpt = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Make a labelled dataset; the same command goes on after an interruption."""
    from prism_fast.config import load_config

    assignments = [*(set_ or ()), *([f"synthesis.images={images}"] if images is not None else [])]
    settings = load_config(config, tuple(assignments))
    prepare()
    from dataclasses import asdict

    from prism_fast.synthesis.worker import synthesize as run

    with ProgressBars().phase("synthesize") as progress:
        summary = run(settings, out, progress, store, log=lambda line: typer.echo(line, err=True))
    if json_output:
        echo_json({**asdict(summary), "out": str(out), "run_hash": settings.run_hash()})
    else:
        typer.echo(
            f"{summary.images} images in {out} ({summary.made_now} made now, {summary.images_per_s:.2f} a second, "
            f"{summary.quarantined} quarantined)"
        )
