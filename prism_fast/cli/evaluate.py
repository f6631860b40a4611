"""``prism-fast evaluate``."""

from __future__ import annotations

from pathlib import Path
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
    labels: Annotated[
        str | None, typer.Option("--labels", help="Label space of the class folders: bundled name or YAML file.")
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option("--ground-truth", help="CSV or TSV of pictures' names and classes, for pictures side by side."),
    ] = None,
    real: Annotated[
        Path | None, typer.Option("--real", help="real.json of reassessed-imagenet: several labels can be right.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in memory at once.")] = 128,
    json_output: JsonOpt = False,
) -> None:
    """Top-1 and top-5 on real pictures."""
    from prism_fast import evaluate as measure

    found = measure(
        classifier, pictures, labels, device=device, batch_size=batch_size, ground_truth=ground_truth, real=real
    )
    if json_output:
        echo_json([s.model_dump(exclude={"confusion"}) for s in found])
        return
    for s in found:
        subset = f", among {s.classes_scored} of {s.classes} classes" if s.classes_scored != s.classes else ""
        left_out = f", {s.left_out} left out" if s.left_out else ""
        matched = f", matched {s.matched}" if s.matched else ""
        typer.echo(
            f"{s.test_set}: top-1 {100 * s.top1:.1f} % [{100 * s.low:.1f}, {100 * s.high:.1f}], "
            f"top-5 {100 * s.top5:.1f} %, {s.n} pictures{left_out}{subset}{matched}"
        )
