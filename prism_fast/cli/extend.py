"""``prism-fast extend``."""

from __future__ import annotations

from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, RunArg, echo_json


def extend(
    run: RunArg,
    images: Annotated[int, typer.Option("--images", min=1, help="Number of images that the run shall have.")],
    json_output: JsonOpt = False,
) -> None:
    """Let a run have more images; its full shards stay, 'synthesize --images' makes the rest."""
    from dataclasses import asdict

    from prism_fast.operations.extend import extend as lengthen

    made = lengthen(run, images)
    if json_output:
        echo_json(asdict(made))
        return
    if made.retired is not None:
        typer.echo(f"shard {made.retired:06d} was not full and will be made again")
    typer.echo(
        f"{run}: from {made.images_before} to {made.images} images, {made.shards_to_make} of {made.shards} shards to "
        f"make with 'prism-fast synthesize ... --images {made.images}'"
    )
