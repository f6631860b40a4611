"""``prism-fast report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import CheckOpt
from prism_fast.storage.paths import local_path


def report(
    run: Annotated[Path, typer.Argument(parser=local_path, help="What 'synthesize' or 'demo' wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", parser=local_path, help="HTML file; default: report.html in the run.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            parser=local_path,
            help="Also write a PNG: the first four images of each of at most 64 classes.",
        ),
    ] = None,
    check: CheckOpt = None,
    diversity: Annotated[
        int | None,
        typer.Option(
            "--diversity",
            min=2,
            help="Also measure diversity by class on so many images of each of at most 64 classes; loads a network.",
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page about a run."""
    from prism_fast import report as write

    typer.echo(f"report: {write(run, out, picture=picture, check=check, diversity=diversity)}")
    if picture is not None:
        typer.echo(f"picture: {picture}")
