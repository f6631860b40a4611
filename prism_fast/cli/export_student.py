"""``prism-fast export-student``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, OutOpt, echo_json, log
from prism_fast.storage.paths import local_path


class Form(StrEnum):
    """What to write."""

    safetensors = "safetensors"
    onnx = "onnx"
    torch = "torch"


def export_student(
    student: Annotated[
        Path, typer.Argument(parser=local_path, help="What 'distill' wrote, or any classifier directory.")
    ],
    out: OutOpt,
    form: Annotated[
        list[Form] | None,
        typer.Option("--format", help="timm's directory, ONNX, or torch.export. Repeatable; default: all."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights in float16.")] = False,
    latency: Annotated[bool, typer.Option("--latency", help="Measure milliseconds for the model card.")] = False,
    json_output: JsonOpt = False,
) -> None:
    """Write a student for other tools, each file compared with the student itself, and a model card."""
    from dataclasses import asdict

    from prism_fast import export_student as write

    made = write(student, out, [one.value for one in form or Form], half=half, latency=latency)
    for note in made.notes:
        log(note)
    if json_output:
        echo_json(asdict(made))
        return
    for one in made.files:
        typer.echo(
            f"{made.out / one.file}: {one.size_bytes / 1e6:.3g} MB, logits differ from the student's by at most "
            f"{one.error:.2g}"
        )
