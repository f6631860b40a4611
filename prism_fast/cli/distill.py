"""``prism-fast distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import CheckOpt, ConfigArg, JsonOpt, OutOpt, ProgressBars, SetOpt, echo_json
from prism_fast.storage.paths import local_path


def distill(
    config: ConfigArg,
    run: Annotated[Path, typer.Option("--run", parser=local_path, help="Directory that 'synthesize' wrote.")],
    out: OutOpt,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    check: CheckOpt = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Train a student on a synthesized dataset; the same command goes on after an interruption."""
    from prism_fast import distill as train
    from prism_fast import load_config

    settings = load_config(config, set_ or ())
    with ProgressBars().phase("distill") as progress:
        result = train(settings, run, out, device=device, check=check, progress=progress)
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
