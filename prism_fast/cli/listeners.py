"""Who is told how a synthesis goes: the terminal or a log of JSON lines, and whoever scrapes a port."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prism_fast.cli.common import ProgressBars, log

if TYPE_CHECKING:
    from prism_fast.dataset.record import Record


@dataclass
class Listeners:
    """What a synthesis is given to tell: each call goes to everybody."""

    log: Callable[[str], None] = log
    on_progress: list[Callable[[int, int, float], None]] = field(default_factory=list)
    on_finished: list[Callable[[Record], None]] = field(default_factory=list)

    def progress(self, done: int, planned: int, images_per_s: float) -> None:
        """Images finished and planned, and a rate."""
        for listener in self.on_progress:
            listener(done, planned, images_per_s)

    def finished(self, record: Record) -> None:
        """One more shard."""
        for listener in self.on_finished:
            listener(record)


@contextmanager
def listening(out: Path, images: int, worker: str, json_lines: bool, metrics_port: int | None) -> Iterator[Listeners]:
    """The listeners of a synthesis while it goes on.

    Args:
        out: the run's directory.
        images: how many are planned.
        worker: who makes it, for the JSON lines.
        json_lines: everything on standard error is JSON, without progress bars.
        metrics_port: serve metrics there.

    Raises:
        InputError: metrics cannot be served.
    """
    listeners = Listeners()
    with ExitStack() as stack:
        if metrics_port is not None:
            from prism_fast.dataset.run_directory import RunDirectory
            from prism_fast.workers.metrics import serve

            metrics = stack.enter_context(serve(metrics_port))
            metrics.progress(RunDirectory(out).images_done(), images, 0.0)
            listeners.on_progress.append(metrics.progress)
            listeners.on_finished.append(metrics.finished)
        if json_lines:
            from prism_fast.workers.json_log import json_log, log_shard

            stack.enter_context(json_log(worker))
            listeners.on_finished.append(log_shard)
            listeners.log = logging.getLogger("prism_fast").info
        else:
            listeners.on_progress.append(stack.enter_context(ProgressBars().phase("synthesize")))
        yield listeners
