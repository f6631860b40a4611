"""``prism-fast repair``."""

from __future__ import annotations

from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, ProgressBars, RunArg, echo_json


def repair(
    run: RunArg,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    json_output: JsonOpt = False,
) -> None:
    """Delete what 'verify' condemns; 'synthesize' then makes exactly that again. Not while a run is being made."""
    from dataclasses import asdict

    from prism_fast.operations.repair import carry_out, examine

    with ProgressBars().phase("repair, MB/s") as progress:
        found = examine(run, progress)
    if not json_output:
        for removal in found.removals:
            typer.echo(f"{removal.path.name}: {removal.reason}")
    if not dry_run:
        carry_out(found)
    if json_output:
        echo_json({**asdict(found), "deleted": not dry_run})
    else:
        done = f"{len(found.removals)} files {'to delete' if dry_run else 'deleted'}"
        typer.echo(f"{done}, {found.images} images in {found.shards} shards to make with 'prism-fast synthesize'")
