"""``prism-fast report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="What 'synthesize' or 'demo' wrote.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file; default: report.html in the run.")] = None,
) -> None:
    """Write one self-contained HTML page about a run."""
    from prism_fast.evaluate.gather import gather, require_run
    from prism_fast.evaluate.report import build_report

    require_run(run)
    typer.echo(f"report: {build_report(gather(run), out or run / 'report.html')}")
