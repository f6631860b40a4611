"""``prism-fast compress``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, OutOpt, ProgressBars, SetOpt, echo_json, log
from prism_fast.storage.paths import local_path


def compress(
    teacher: Annotated[str, typer.Argument(help="Classifier: a directory, a timm model name, or minis.")],
    out: OutOpt,
    budget: Annotated[
        float, typer.Option("--budget", help="Part of the teacher's multiply-adds that the student may cost.")
    ] = 0.5,
    config: Annotated[
        str | None, typer.Option("--config", help="Images and recipe; default: minis-emoji for minis, else ImageNet's.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", parser=local_path, help="Images that are there already.")] = None,
    candidates: Annotated[int, typer.Option("--candidates", min=1, max=8, help="Cuts that are distilled.")] = 2,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Make a smaller classifier of a teacher, without its data: images, what to cut off, distillation, the choice."""
    from prism_fast import compress as make
    from prism_fast import load_config

    name = config or ("minis-emoji" if teacher == "minis" else "imagenet1k-sd15")
    settings = load_config(name, [f"models.teacher={teacher}", *(set_ or ())])
    bars = ProgressBars()
    made = make(settings, budget, out, run=run, candidates=candidates, device=device, phase=bars.phase, log=log)
    if json_output:
        echo_json([one.described() for one in made])
        return
    whole = made[0].teacher
    typer.echo(f"teacher: {whole.gmac:.4g} GMAC, {whole.parameters / 1e6:.3g} M parameters")
    for one in made:
        size = f"{one.cost.gmac:.4g} GMAC ({one.candidate.share:.3f}), {one.cost.parameters / 1e6:.3g} M parameters"
        typer.echo(f"{one.student}: {size}, agrees with the teacher on {one.agreement:.1%} of held-out images")
