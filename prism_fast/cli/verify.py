"""``prism-fast verify``."""

from __future__ import annotations

import typer

from prism_fast.cli.common import JsonOpt, ProgressBars, RunArg, echo_json


def verify(run: RunArg, json_output: JsonOpt = False) -> None:
    """Check that every planned image is there exactly once and every byte is as recorded."""
    from dataclasses import asdict

    from prism_fast import verify as check

    with ProgressBars().phase("verify, MB/s") as progress:
        verdict = check(run, progress=progress)
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
