"""``prism-fast extend``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, ProgressBars, RunArg, echo_json
from prism_fast.storage.paths import local_path


class Towards(StrEnum):
    """What new images are given out by."""

    agreement = "agreement"
    coverage = "coverage"
    student = "student"


def extend(
    run: RunArg,
    images: Annotated[int, typer.Option("--images", min=1, help="Number of images that the run shall have.")],
    towards: Annotated[
        Towards | None,
        typer.Option(
            "--towards",
            help="Give the new images to the classes, sorts and scenes whose images the teacher does not confirm, lie "
            "far apart, or a student answers otherwise than the teacher; without: to every class equally many.",
        ),
    ] = None,
    student: Annotated[
        Path | None, typer.Option("--student", parser=local_path, help="Of --towards student: the trained student.")
    ] = None,
    json_output: JsonOpt = False,
) -> None:
    """Let a run have more images; its full shards stay, 'synthesize --images' makes the rest."""
    from dataclasses import asdict

    from prism_fast.errors import InputError
    from prism_fast.operations.extend import extend as lengthen

    if student is not None and towards is not Towards.student:
        raise InputError("--student is for --towards student")
    if towards is None:
        made = lengthen(run, images)
    else:
        from prism_fast.operations.decide import Aim
        from prism_fast.process import prepare

        prepare()
        with ProgressBars().phase(f"look for what {run} lacks") as progress:
            made = lengthen(run, images, Aim(towards.value, student), progress)
    if json_output:
        echo_json(asdict(made))
        return
    if made.retired is not None:
        typer.echo(f"shard {made.retired:06d} was not full and will be made again")
    typer.echo(
        f"{run}: from {made.images_before} to {made.images} images, {made.shards_to_make} of {made.shards} shards to "
        f"make with 'prism-fast synthesize ... --images {made.images}'"
    )
