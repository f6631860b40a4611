"""``prism-fast prompts stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, ProgressBars, SetOpt, echo_json
from prism_fast.process import prepare

if TYPE_CHECKING:
    from rich.table import Table

    from prism_fast.prompt_tools.stats import ClassStats, PromptStats, TokenCounts

_SHOWN = 20


def stats(
    config: ConfigArg,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, help="Rows of the plan; default: the run's, at most 64 of a class."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="These alone: names or numbers, with commas between.")
    ] = None,
    encode: Annotated[
        bool, typer.Option("--encode/--no-encode", help="Encode the prompts, or only count: needs no model.")
    ] = True,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Measure how different each class's prompts are: distinct ones, tokens, distance and Vendi score in text space."""
    from prism_fast.config import load_config
    from prism_fast.prompt_tools.stats import prompt_stats

    settings = load_config(config, tuple(set_ or ()))
    if encode:
        prepare()
    wanted = [name.strip() for name in classes.split(",")] if classes is not None else ()
    with ProgressBars().phase("classes") as progress:
        found = prompt_stats(settings, images=images, classes=wanted, encode=encode, progress=progress)
    if json_output:
        echo_json(found.model_dump(mode="json"))
    else:
        _print(found)


def _print(found: PromptStats) -> None:
    from rich.console import Console

    shown = found.lowest(_SHOWN)
    order = "Vendi scores" if found.limit is not None else "numbers of distinct prompts"
    if len(shown) < len(found.classes):
        typer.echo(f"the {len(shown)} lowest {order} of {len(found.classes)} classes")
    Console().print(_table(shown, found.limit is not None))
    for name, text in _totals(found).items():
        typer.echo(f"{name:<18} {text}")


def _table(shown: list[ClassStats], encoded: bool) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("class", overflow="fold")
    counts = ("rows", "distinct", "repeat at row")
    for name in (*counts, *(("tokens", "too long", "distance", "Vendi") if encoded else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for c in shown:
        cells = [str(c.rows), str(c.distinct), "-" if c.first_repeat is None else str(c.first_repeat)]
        if c.tokens is not None:
            cells += [
                _tokens(c.tokens, "{0}/{1:.1f}/{2}"),
                str(c.tokens.too_long),
                _number(c.distance, 4),
                _number(c.vendi, 2),
            ]
        table.add_row(c.name, *cells)
    return table


def _totals(found: PromptStats) -> dict[str, str]:
    total = found.overall
    rows = {
        "rows": _rows(found),
        "distinct prompts": f"{total.distinct} of {total.rows}",
        "classes": f"{len(found.classes)}, {total.repeats} of them have a prompt twice",
        "of two classes": f"{total.shared} prompts",
    }
    if total.tokens is not None:
        tokens = total.tokens
        spread = _tokens(tokens, "{0} to {2}, mean {1:.1f}")
        rows["tokens"] = f"{spread}; {tokens.too_long} rows exceed the encoder's {found.limit}"
        of = f"of the first {found.compared} rows of a class"
        rows["within a class"] = (
            f"distance {_number(total.class_distance, 4)}, Vendi score {_number(total.class_vendi, 2)}: means, {of}"
        )
        rows["all together"] = f"distance {_number(total.distance, 4)}, Vendi score {_number(total.vendi, 2)}"
    if found.picked:
        rows["note"] = "prompts.select is coverage: a run picks other prompts than these, the first of each sequence"
    return rows


def _rows(found: PromptStats) -> str:
    text = f"the first {found.images} of {found.planned}"
    if found.by_default and found.images < found.planned:
        return f"{text}, at most 64 of a class; --images for more"
    return text if found.images <= found.planned else f"{found.images}; the run has {found.planned}"


def _tokens(tokens: TokenCounts, form: str) -> str:
    return form.format(tokens.min, tokens.mean, tokens.max)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
