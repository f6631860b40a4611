"""``prism-fast views``."""

from __future__ import annotations

from typing import Annotated

import typer

from prism_fast.cli.common import CheckOpt, JsonOpt, ProgressBars, RunArg, SetOpt, echo_json


def views(
    run: RunArg,
    count: Annotated[int, typer.Option("--count", help="Views of each image that there shall be.")],
    settings: SetOpt = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda, where the teacher runs.")] = "cpu",
    check: CheckOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Let a run's teacher label crops of its images beforehand; then distill.teacher=views.

    Called again after an interruption it goes on; with a larger --count the views before are kept. How crops are drawn
    is the run's own configuration, unless --set views.crop_scale=... says otherwise.
    """
    from dataclasses import asdict

    from prism_fast import label_views
    from prism_fast.config import parse_assignments

    with ProgressBars().phase("views, images/s") as progress:
        made = label_views(run, count, parse_assignments(settings or ()), device=device, check=check, progress=progress)
    if json_output:
        echo_json(asdict(made))
    elif made.with_samples:
        typer.echo(f"the run stores {made.count} such views with its samples already; nothing to do")
    else:
        typer.echo(f"{made.count} views of each image in {made.shards} shards, {made.made} of them labelled now")
