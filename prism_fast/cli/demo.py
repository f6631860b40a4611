"""``prism-fast demo``."""

from __future__ import annotations

from pathlib import Path

import typer

from prism_fast.cli.common import JsonOpt, OutOpt, ProgressBars, SetOpt, echo_json, log
from prism_fast.process import prepare


def demo(
    out: OutOpt = Path("runs/demo"),
    config: str = typer.Option("minis-emoji", help="Configuration to run."),
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Synthesize, distil, measure and report, on the bundled models."""
    from prism_fast.config import load_config

    settings = load_config(config, set_ or ())
    prepare()
    from prism_fast.experiments.demo import run_demo

    summary = run_demo(settings, out, ProgressBars(), log)
    if json_output:
        echo_json(summary)
        return
    for name in (
        "teacher_top1",
        "student_top1",
        "student_top1_unguided",
        "student_top1_real",
        "student_top1_domain_shift",
        "inherited_top1",
    ):
        typer.echo(f"{name:28} {100 * summary[name]:.1f} %")
    typer.echo(
        f"{summary['images']} images at {summary['images_per_s']:.2f} a second; {summary['wall_s']:.0f} s in all"
    )
    typer.echo(f"report: {out / 'report.html'}")
