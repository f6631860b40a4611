"""``prism-fast verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, echo_json


def verify(run: Annotated[Path, typer.Argument(help="Run directory.")], json_output: JsonOpt = False) -> None:
    """Check that every planned image is there exactly once and every byte is as recorded."""
    from dataclasses import asdict

    from prism_fast.synthesis.verify import verify as check

    verdict = check(run)
    if json_output:
        echo_json(asdict(verdict))
    else:
        for problem in verdict.problems:
            typer.echo(f"error: {problem}", err=True)
        typer.echo(
            f"{verdict.images} images in {verdict.shards} shards, {verdict.size_bytes / 1e6:.1f} MB, "
            f"{verdict.quarantined} quarantined, {len(verdict.problems)} problems"
        )
    if verdict.problems:
        raise typer.Exit(1)
