"""``prism-fast report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.paths import local_path


def report(
    run: Annotated[Path, typer.Argument(parser=local_path, help="What 'synthesize' or 'demo' wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", parser=local_path, help="HTML file; default: report.html in the run.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", parser=local_path, help="Also write a PNG: the first four images of each class."),
    ] = None,
) -> None:
    """Write one self-contained HTML page about a run."""
    from prism_fast.evaluate.gather import gather, main_run
    from prism_fast.evaluate.report import build_report

    main = main_run(run)
    typer.echo(f"report: {build_report(gather(run), out or run / 'report.html')}")
    if picture is not None:
        from prism_fast.evaluate.picture import save_class_grid
        from prism_fast.synthesis.reader import read_samples

        typer.echo(f"picture: {save_class_grid(read_samples(main), 4, picture)}")
