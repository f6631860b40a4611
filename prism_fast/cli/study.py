"""``prism-fast study``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, OutOpt, ProgressBars, SetOpt, echo_json, log
from prism_fast.process import prepare


class StudyName(StrEnum):
    """The studies there are."""

    prompts = "prompts"


def study(
    name: Annotated[StudyName, typer.Argument(help="prompts: templates, the bank, and what is picked from it.")],
    out: OutOpt = Path("runs/study-prompts"),
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Of noise, plan and student.")] = 3,
    arms: Annotated[str, typer.Option("--arms", help="These arms alone, separated by commas; all when empty.")] = "",
    config: str = typer.Option("minis-emoji", help="Configuration that the arms change the prompts of."),
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Compare ways to make prompts: students on the three test sets, Vendi, coverage; cells that are there stay."""
    from prism_fast.config import load_config
    from prism_fast.errors import InputError

    settings = load_config(config, tuple(set_ or ()))
    prepare()
    from prism_fast.experiments.prompt_study import ARMS, Study, as_markdown, run_study

    wanted = [part.strip() for part in arms.split(",") if part.strip()] or [arm.name for arm in ARMS]
    if unknown := [name for name in wanted if name not in {arm.name for arm in ARMS}]:
        raise InputError(f"no arm is called {unknown[0]!r}; there are {', '.join(arm.name for arm in ARMS)}")
    chosen = [arm for arm in ARMS if arm.name in wanted]
    rows = run_study(Study(settings, out, ProgressBars(), log), chosen, seeds)
    if json_output:
        echo_json(rows)
    else:
        typer.echo(as_markdown(rows))
