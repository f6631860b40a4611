"""What the commands share: arguments, progress, the one-line error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from prism_fast.storage.paths import local_path, run_path

ConfigArg = Annotated[str, typer.Argument(help="Name of a bundled configuration (see 'configs') or a YAML file.")]
RunArg = Annotated[Path, typer.Argument(parser=run_path, help="Run directory, or s3://BUCKET/RUN.")]
LocalRunArg = Annotated[Path, typer.Argument(parser=local_path, help="Run directory.")]
RunOutOpt = Annotated[Path, typer.Option("--out", parser=run_path, help="Run directory, or s3://BUCKET/RUN.")]
OutOpt = Annotated[Path, typer.Option("--out", parser=local_path, help="Directory to write to.")]
SetOpt = Annotated[list[str] | None, typer.Option("--set", help="Change one value: section.key=value. Repeatable.")]
StoreOpt = Annotated[
    Path | None,
    typer.Option("--store", parser=local_path, help="Engine store; default: $PRISM_FAST_STORE, else below ~/.cache."),
]
CheckOpt = Annotated[
    bool | None,
    typer.Option("--check/--no-check", help="Hash every shard first, or none; default: only of a small run."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_PLAIN_EVERY_S = 10.0


@dataclass
class Failure:
    """How an error is shown: with its traceback, or as a JSON line."""

    traceback: bool = False
    json: bool = False


#: Of the command that runs; set by its options, read when it fails.
failure = Failure()


def echo_json(data: object) -> None:
    """Print one JSON document."""
    import json

    typer.echo(json.dumps(data, indent=2, default=str))


class ProgressBars:
    """Rich bars on a terminal, a plain line every ten seconds elsewhere; both on standard error."""

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[int, int, float | str], None]]:
        """Show one phase; the yielded function takes (done, total, a number or words that say how it goes)."""
        if sys.stderr.isatty():
            with self._bar(name) as update:
                yield update
        else:
            yield self._lines(name)

    @contextmanager
    def _bar(self, name: str) -> Iterator[Callable[[int, int, float | str], None]]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[value]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(name, total=None, value="")
            yield lambda done, total, value: bars.update(task, completed=done, total=total, value=_brief(value))

    @staticmethod
    def _lines(name: str) -> Callable[[int, int, float | str], None]:
        began, shown = time.monotonic(), -_PLAIN_EVERY_S
        first: int | None = None

        def update(done: int, total: int, value: float | str) -> None:
            nonlocal began, first, shown
            now = time.monotonic()
            if first is None:  # what was done before is not what this took
                began, first = now, done
            if now - shown >= _PLAIN_EVERY_S or done == total:
                typer.echo(
                    f"{name}: {done}/{total} ({_brief(value)}){_left(done - first, total - done, now - began)}",
                    err=True,
                )
                shown = now

        return update


def _left(done: int, left: int, seconds: float) -> str:
    """How long it still takes, where that can be said."""
    if not done or not left:
        return ""
    minutes, rest = divmod(round(seconds / done * left), 60)
    return f", {minutes}:{rest:02d} left"


def _brief(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def log(line: str) -> None:
    """One line on standard error."""
    typer.echo(line, err=True)
