"""``prism-fast evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, echo_json


def evaluate(
    classifier: Annotated[
        str, typer.Argument(help="Classifier directory, timm model name, or 'minis' for the bundled teacher.")
    ],
    pictures: Annotated[
        str, typer.Option("--pictures", help="ImageFolder directory, or 'minis' for the bundled test sets.")
    ] = "minis",
    batch_size: int = 128,
    json_output: JsonOpt = False,
) -> None:
    """Top-1 and top-5 on real pictures."""
    from prism_fast import evaluate as measure

    found = measure(classifier, pictures, batch_size=batch_size)
    if json_output:
        echo_json([s.model_dump(exclude={"confusion"}) for s in found])
        return
    for s in found:
        typer.echo(
            f"{s.test_set}: top-1 {100 * s.top1:.1f} % [{100 * s.low:.1f}, {100 * s.high:.1f}], "
            f"top-5 {100 * s.top5:.1f} %, {s.n} pictures"
        )
