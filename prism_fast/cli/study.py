"""``prism-fast study``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import typer

from prism_fast.cli.common import JsonOpt, ProgressBars, SetOpt, echo_json, log
from prism_fast.process import prepare


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Arm = TypeVar("_Arm", bound=_Named)


class StudyName(StrEnum):
    """The studies there are."""

    prompts = "prompts"
    students = "students"


_HELP = "prompts: templates, the bank, and what is picked from it. students: targets, losses, steps, inherited weights."


def study(
    name: Annotated[StudyName, typer.Argument(help=_HELP)],
    out: Annotated[Path | None, typer.Option("--out", help="Directory to write to; runs/study-NAME.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How often each cell is made.")] = 3,
    arms: Annotated[str, typer.Option("--arms", help="These arms alone, separated by commas; all if empty.")] = "",
    config: str = typer.Option("minis-emoji", help="Configuration that the arms change."),
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Compare ways to make prompts, or ways to train students, on three test sets; cells that are there stay."""
    from prism_fast.config import load_config

    settings = load_config(config, tuple(set_ or ()))
    prepare()
    from prism_fast.experiments import prompt_study, student_study
    from prism_fast.experiments.study import Study

    made = Study(settings, out or Path(f"runs/study-{name}"), ProgressBars(), log)
    if name is StudyName.prompts:
        rows = prompt_study.run_study(made, _wanted(prompt_study.ARMS, arms), seeds)
        table = prompt_study.as_markdown(rows)
    else:
        rows = student_study.run_student_study(made, _wanted(student_study.ARMS, arms), seeds)
        table = student_study.as_markdown(rows)
    if json_output:
        echo_json(rows)
    else:
        typer.echo(table)


def _wanted(arms: Sequence[_Arm], names: str) -> list[_Arm]:
    from prism_fast.errors import InputError

    wanted = [part.strip() for part in names.split(",") if part.strip()] or [arm.name for arm in arms]
    if unknown := [name for name in wanted if name not in {arm.name for arm in arms}]:
        raise InputError(f"no arm is called {unknown[0]!r}; there are {', '.join(arm.name for arm in arms)}")
    return [arm for arm in arms if arm.name in wanted]
