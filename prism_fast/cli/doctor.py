"""``prism-fast doctor``: what can run here and, for everything that cannot, every reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from prism_fast.doctor import Check


def doctor(json_output: Annotated[bool, typer.Option("--json", help="Print a list of JSON objects.")] = False) -> None:
    """Say what can run here and, for everything that cannot, every reason."""
    from prism_fast.doctor import examine

    checks = examine()
    if json_output:
        _print_json(checks)
        return
    from rich.console import Console

    Console().print(_table(checks))


def _print_json(checks: list[Check]) -> None:
    import json
    from dataclasses import asdict

    typer.echo(json.dumps([asdict(check) for check in checks], indent=2))


def _table(checks: list[Check]) -> Table:
    """One row a check; the group is named on its first row only."""
    from rich.table import Table
    from rich.text import Text

    table = Table("group", "what", "runs")
    table.add_column("found, or why not and what to do", overflow="fold")
    previous = ""
    for check in checks:
        mark = Text("yes", style="green") if check.ok else Text("no", style="yellow")
        detail = Text("\n".join(filter(None, (check.version, *check.reasons))))
        table.add_row("" if check.group == previous else check.group, check.name, mark, detail)
        previous = check.group
    return table
