"""``prism-fast export``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from prism_fast.cli.common import CheckOpt, JsonOpt, LocalRunArg, OutOpt, ProgressBars, echo_json


class Layout(StrEnum):
    """What to write."""

    imagefolder = "imagefolder"
    parquet = "parquet"


_NAMES: dict[Layout, Literal["imagefolder", "parquet"]] = {
    Layout.imagefolder: "imagefolder",
    Layout.parquet: "parquet",
}


def export(
    run: LocalRunArg,
    out: OutOpt,
    layout: Annotated[Layout, typer.Option("--format", help="One folder a class, or Parquet.")],
    selected: Annotated[bool, typer.Option("--selected", help="Leave out what 'select' rejected.")] = False,
    check: CheckOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Write a run's images as one folder a class, or as Parquet with logits and prompts."""
    from prism_fast.operations.export import export as write

    with ProgressBars().phase("export, images") as progress:
        images = write(run, out, _NAMES[layout], progress, selected, check)
    if json_output:
        echo_json({"images": images, "format": layout.value, "out": str(out)})
    else:
        typer.echo(f"{images} images in {out}")
