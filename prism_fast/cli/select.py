"""``prism-fast select``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import CheckOpt, JsonOpt, ProgressBars, RunArg, echo_json

if TYPE_CHECKING:
    from prism_fast.selection.select import Selection


def select(
    run: RunArg,
    per_class: Annotated[int | None, typer.Option("--per-class", help="Keep at most so many of each class.")] = None,
    keep: Annotated[float | None, typer.Option("--keep", help="Keep this share of each class instead.")] = None,
    quota: Annotated[
        list[str] | None, typer.Option("--quota", help="Another number for one class: CLASS=N. Repeatable.")
    ] = None,
    max_energy: Annotated[float | None, typer.Option("--max-energy", help="Refuse higher final free energies.")] = None,
    agree: Annotated[bool, typer.Option("--agree", help="Refuse what the teacher takes for another class.")] = False,
    duplicates: Annotated[
        float | None,
        typer.Option("--duplicates", help="Refuse what has this cosine or more with a kept image of its class."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda, for --duplicates.")] = "cpu",
    check: CheckOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Choose which images of a finished run are trained on, lowest energies first; then distill.selection=true."""
    from dataclasses import asdict

    from prism_fast import select as choose
    from prism_fast.selection.select import parse_quotas

    found = choose(
        run,
        per_class=per_class,
        keep=keep,
        quotas=parse_quotas(quota or ()),
        max_energy=max_energy,
        agree=agree,
        duplicates=duplicates,
        device=device,
        check=check,
        phase=ProgressBars().phase,
    )
    if json_output:
        echo_json(asdict(found))
        return
    for name, text in _table(found).items():
        typer.echo(f"{name:<20} {text}")


def _table(found: Selection) -> dict[str, str]:
    spread = found.accepted_by_class
    return {
        "run": found.run_hash[:12],
        "accepted": f"{found.accepted} of {found.images}",
        **{f"rejected, {reason}": str(count) for reason, count in found.rejected.items()},
        "by class": f"{spread.min} to {spread.max} accepted, median {spread.median:g}, {found.classes} classes",
        "below quota": f"{found.short} classes",
    }
