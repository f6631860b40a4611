"""``prism-fast distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, OutOpt, ProgressBars, SetOpt, echo_json, prepare
from prism_fast.paths import local_path


def distill(
    config: ConfigArg,
    run: Annotated[Path, typer.Option("--run", parser=local_path, help="Directory that 'synthesize' wrote.")],
    out: OutOpt,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Train a student on a synthesized dataset; the same command goes on after an interruption."""
    from prism_fast.config import load_config

    settings = load_config(config, tuple(set_ or ()))
    prepare()
    from prism_fast.data.schema import ShardSet
    from prism_fast.distill.student import MEAN, STD
    from prism_fast.distill.teacher import LiveTeacher
    from prism_fast.distill.trainer import distill as train
    from prism_fast.minis.bundle import resolve
    from prism_fast.models.classifier import load_classifier
    from prism_fast.models.device import require_device

    require_device(device)
    shards = ShardSet.discover(run, settings.distill.selection)
    mean, std, teacher = MEAN, STD, None
    if settings.distill.teacher == "live":
        classifier = load_classifier(resolve(settings.models.teacher, "teacher"))
        teacher, mean, std = LiveTeacher(classifier).to(device), classifier.config.mean, classifier.config.std
    with ProgressBars().phase("distill") as progress:
        result = train(
            settings.distill, shards, out, teacher=teacher, mean=mean, std=std, device=device, progress=progress
        )
    if json_output:
        echo_json(
            {
                "student": str(result.student),
                "steps": result.steps,
                "loss": result.loss,
                "agreement": result.agreement,
                "images_per_s": result.images_per_s,
                "resumed_from": result.resumed_from,
            }
        )
    else:
        typer.echo(
            f"student in {result.student}: loss {result.loss:.3f}, "
            f"agrees with the teacher on {100 * result.agreement:.1f} %"
        )
