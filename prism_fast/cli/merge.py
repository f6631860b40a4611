"""``prism-fast merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, OutOpt, ProgressBars, echo_json
from prism_fast.storage.paths import local_path


def merge(
    runs: Annotated[
        list[Path], typer.Argument(parser=local_path, help="Partial runs of the same configuration and models.")
    ],
    out: OutOpt,
    json_output: JsonOpt = False,
) -> None:
    """Verify partial runs and join them, by hard link where the disk allows; a complete run gets its manifest."""
    from dataclasses import asdict

    from prism_fast.operations.merge import merge as join

    with ProgressBars().phase("merge, MB/s") as progress:
        merged = join(runs, out, progress)
    if json_output:
        echo_json({**asdict(merged), "out": str(out)})
    else:
        typer.echo(
            f"{merged.shards} of {merged.shards_planned} shards, {merged.images} images in {out} "
            f"({merged.linked} linked, {merged.copied} copied)"
        )
