"""``prism-fast gpu-check``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import JsonOpt, echo_json, log
from prism_fast.storage.paths import local_path

if TYPE_CHECKING:
    from rich.table import Table

    from prism_fast.gpu_check.check import StepResult

_COLOURS = {"PASS": "green", "FAIL": "red", "SKIP": "yellow"}


def gpu_check(
    config: Annotated[
        str | None,
        typer.Argument(help="Your configuration, a name or a YAML file, for the steps 'guided' and 'shards'."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="The GPU.")] = "cuda:0",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A step, or a group of them as 'operators'. Repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", parser=local_path, help="Keep every step's messages and the JSON there.")
    ] = None,
    json_output: JsonOpt = False,
) -> None:
    """Check every part of the project on a GPU: what works, what does not, and what to do about it."""
    from dataclasses import asdict

    from rich.console import Console

    from prism_fast import check_gpu, load_config

    settings = None if config is None else load_config(config)
    plain = json_output or not sys.stdout.isatty()
    screen = _Screen(plain)
    try:
        checked = check_gpu(settings, device=device, only=only or (), out=out, began=screen.began, ended=screen.ended)
    finally:
        screen.close()
    if json_output:
        echo_json(asdict(checked))
    else:
        if plain:
            Console().print(_table(screen.results))
        typer.echo(
            f"{checked.device}, driver {checked.driver}: {'nothing failed' if checked.passed else 'not all well'}"
        )
    if not checked.passed:
        raise typer.Exit(1)


class _Screen:
    """Shows steps as they begin and end: a table that grows on a terminal, a line each elsewhere."""

    def __init__(self, plain: bool) -> None:
        from rich.live import Live

        self.results: list[StepResult] = []
        self.live = None if plain else Live(auto_refresh=False, vertical_overflow="visible")

    def began(self, name: str) -> None:
        """A step begins."""
        if self.live is None:
            log(f"{name} ...")
            return
        self.live.start()  # nothing is drawn before the input was found right
        self.live.update(_table(self.results, name), refresh=True)

    def ended(self, result: StepResult) -> None:
        """A step has ended."""
        self.results.append(result)
        if self.live is None:
            log(f"{result.name} {result.status}")
        else:
            self.live.update(_table(self.results), refresh=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            self.live.stop()


def _table(results: list[StepResult], running: str = "") -> Table:
    """A row a step: what was found and, below it, what to do."""
    from rich.table import Table
    from rich.text import Text

    table = Table("step", "", "s")
    table.add_column("found, and what to do", overflow="fold")
    for one in results:
        words = Text("\n".join(filter(None, (one.found, one.remedy))))
        table.add_row(one.name, Text(one.status, style=_COLOURS[one.status]), f"{one.seconds:.1f}", words)
    if running:
        table.add_row(running, "...", "", "")
    return table
