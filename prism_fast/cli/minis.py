"""``prism-fast minis``: rebuild the bundled models from the registries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, echo_json
from prism_fast.process import prepare
from prism_fast.storage.paths import local_path

app = typer.Typer(no_args_is_help=True, help="Rebuild the bundled models, or check them.")

WorkOpt = Annotated[Path, typer.Option("--work", parser=local_path, help="For downloads, pictures and checkpoints.")]


@app.command()
def data(work: WorkOpt = Path("runs/minis")) -> None:
    """Fetch the emoji packages (pinned, checksummed) and render them."""
    from prism_fast.minis.data import build

    typer.echo(f"pictures: {build(work, work / 'cache', typer.echo)}")


@app.command()
def train(
    work: WorkOpt = Path("runs/minis"),
    hours: Annotated[float, typer.Option("--hours", min=0.01, help="Time for all but the teacher.")] = 1.5,
    light: Annotated[
        bool, typer.Option("--light", help="Train the light decoder alone, a twentieth of the time.")
    ] = False,
) -> None:
    """Train autoencoder, decoders, UNet and teacher; goes on from checkpoints, writes a model card."""
    prepare()
    from prism_fast.minis.recipe import LIGHT_SHARE, train_all, train_light

    if light:
        typer.echo(f"light decoder: {train_light(work, hours * LIGHT_SHARE * 3600, typer.echo)}")
        return
    typer.echo(f"models: {train_all(work, hours * 3600, typer.echo)}")


@app.command()
def check(json_output: JsonOpt = False) -> None:
    """Measure the bundled models: reconstruction, teacher accuracy, sizes."""
    prepare()
    from prism_fast.minis.recipe import check_bundle

    found = check_bundle()
    if json_output:
        echo_json(found)
        return
    for name, value in found.items():
        typer.echo(f"{name:32} {value}")
