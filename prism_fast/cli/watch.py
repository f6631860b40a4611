"""``prism-fast watch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import JsonOpt, RunArg, echo_json

if TYPE_CHECKING:
    from rich.console import Group

    from prism_fast.operations.watch import Frame


def watch(
    run: RunArg,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    json_output: JsonOpt = False,
) -> None:
    """Watch a run, from this or any machine that sees its directory; ends when the run does."""
    import time
    from dataclasses import asdict

    from prism_fast.operations.watch import Watcher

    watcher = Watcher(run)
    frame = watcher.frame(time.time())
    if json_output:
        echo_json(asdict(frame))
        return
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once:
        console.print(view(frame))
        return
    with Live(view(frame), console=console, auto_refresh=False) as live:
        while not frame.done:
            time.sleep(every_s)
            frame = watcher.frame(time.time())
            live.update(view(frame), refresh=True)


def _duration(seconds: float | None) -> str:
    from datetime import timedelta

    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))


def _energy(frame: Frame) -> str:
    if frame.energy_first is None or frame.energy_last is None:
        return "–"
    drift = frame.energy_last - frame.energy_first
    return f"{frame.energy_first:.3f} at first, {frame.energy_last:.3f} lately ({drift:+.3f})"


def view(frame: Frame) -> Group:
    """A frame as rich draws it."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rate = "–" if frame.images_per_s is None else f"{frame.images_per_s:.3g} a second"
    rows = (
        ("images", f"{frame.images} of {frame.images_planned}, {rate}, {_duration(frame.eta_s)} to go"),
        ("shards", f"{frame.shards} of {frame.shards_planned}, {frame.in_hand} in hand"),
        ("latest", f"{_duration(frame.idle_s)} ago"),
        ("failures", f"{frame.quarantined} quarantined, {len(frame.unreadable)} unreadable records"),
        ("energy", _energy(frame)),
    )
    table = Table.grid(padding=(0, 2))
    table.add_row("", ProgressBar(total=frame.shards_planned, completed=frame.shards, width=40))
    for name, text in rows:
        table.add_row(name, text)
    return Group(table, Text("\n".join(frame.last_images), overflow="fold"))
