"""``prism-fast prompts check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, OutOpt, ProgressBars, SetOpt, StoreOpt, echo_json, log
from prism_fast.storage.paths import local_path

if TYPE_CHECKING:
    from prism_fast.prompt_tools.checking.run import Outcome
    from prism_fast.prompt_tools.checking.verdict import SenseVerdict

_SHOWN = 20


def check(
    config: ConfigArg,
    out: OutOpt,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Names or labels, separated by commas; default: all.")
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Images of each sense.")] = 8,
    choose: Annotated[
        Path | None,
        typer.Option("--choose", parser=local_path, help="Write a bank there, each class's best sense in front."),
    ] = None,
    store: StoreOpt = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Ask the teacher whether it sees each class in images of each of its senses; a page shows what it saw."""
    from prism_fast.config import load_config
    from prism_fast.process import prepare

    settings = load_config(config, tuple(set_ or ()))
    prepare()
    from prism_fast.labels.load import load_label_space
    from prism_fast.prompt_tools.checking.run import check_prompts
    from prism_fast.workers.stop import stoppable

    named = _named(classes, [cls.name for cls in load_label_space(settings.labels).classes])
    with stoppable() as stop, ProgressBars().phase("check") as progress:
        found = check_prompts(
            settings,
            out,
            classes=named,
            images=images,
            choose=choose,
            store=store,
            progress=progress,
            log=log,
            stop=stop,
        )
    if json_output:
        echo_json(_summary(found, out, choose))
    else:
        _show(found, out, choose)


def _named(classes: str | None, names: list[str]) -> list[str]:
    """Classes between commas; a name that has commas itself can be given alone."""
    if classes is None:
        return []
    return [classes] if classes in names else [word.strip() for word in classes.split(",")]


def _summary(found: Outcome, out: Path, choose: Path | None) -> dict[str, Any]:
    result = found.checked
    return {
        "classes": len(result.classes),
        "senses": len(result.senses),
        **result.agreed.model_dump(),
        "quarantined": result.quarantined,
        "never": [sense.model_dump(mode="json") for sense in result.never],
        "better": [one.model_dump(mode="json") for one in result.better],
        "axes": [one.model_dump(mode="json") for one in result.axes],
        "worst": [sense.model_dump(mode="json") for sense in result.senses[:_SHOWN]],
        "made": found.made,
        "found": found.found,
        "images_per_s": found.images_per_s,
        "out": str(out),
        "bank": None if choose is None else str(choose),
    }


def _show(found: Outcome, out: Path, choose: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    result = found.checked
    table = Table("class", "sense", "confirmed", "probability", "the teacher saw", box=None)
    for sense in result.senses[:_SHOWN]:
        table.add_row(*map(Text, _cells(sense)))
    Console(highlight=False).print(table)
    agreed = result.agreed
    if agreed.agreement is not None:
        interval = f"({agreed.low:.1%} to {agreed.high:.1%})"
        typer.echo(f"{agreed.confirmed} of {agreed.n} images confirmed, {agreed.agreement:.1%} {interval}")
    typer.echo(
        f"{len(result.classes)} classes ({found.made} made now, {found.images_per_s:.2f} images a second), "
        f"{len(result.senses)} senses: {len(result.never)} never confirmed, {len(result.better)} with a better "
        f"alternative; {result.quarantined} images quarantined"
    )
    typer.echo(f"{out / 'check.html'} shows them{f', {choose} is a bank of the best' if choose else ''}")


def _cells(sense: SenseVerdict) -> tuple[str, ...]:
    agreed = sense.agreed
    share = "–" if sense.probability is None else f"{sense.probability:.2f}"
    saw = ", ".join(f"{one.class_name} {one.share:.0%}" for one in sense.saw)
    mark = " (alternative)" if sense.number else ""
    return sense.class_name, f"{sense.sense}{mark}", f"{agreed.confirmed} of {agreed.n}", share, saw
