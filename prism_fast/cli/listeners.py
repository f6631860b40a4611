"""Who is told how a synthesis goes: the terminal or a log of JSON lines, and whoever scrapes a port."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from prism_fast.cli.common import ProgressBars

if TYPE_CHECKING:
    from prism_fast.synthesis.launch import Job
    from prism_fast.synthesis.shards import Record
    from prism_fast.synthesis.worker import Finished, Progress


@contextmanager
def listening(job: Job, worker: str, json_lines: bool, metrics_port: int | None) -> Iterator[Job]:
    """``job`` as it tells its listeners.

    Args:
        job: what is to be made.
        worker: who makes it, for the JSON lines.
        json_lines: everything on standard error is JSON, without progress bars.
        metrics_port: serve metrics there.

    Raises:
        InputError: metrics cannot be served.
    """
    progress: list[Progress] = []
    finished: list[Finished] = []
    with ExitStack() as stack:
        if metrics_port is not None:
            from prism_fast.synthesis.metrics import serve

            metrics = stack.enter_context(serve(metrics_port))
            metrics.progress(job.layout.images - job.images_missing(), job.layout.images, 0.0)
            progress.append(metrics.progress)
            finished.append(metrics.finished)
        if json_lines:
            from prism_fast.synthesis.json_log import json_log, log_shard

            stack.enter_context(json_log(worker))
            finished.append(log_shard)
        else:
            progress.append(stack.enter_context(ProgressBars().phase("synthesize")))

        def tell_progress(done: int, planned: int, images_per_s: float) -> None:
            for listener in progress:
                listener(done, planned, images_per_s)

        def tell_finished(record: Record) -> None:
            for listener in finished:
                listener(record)

        log = logging.getLogger("prism_fast").info if json_lines else _echo
        yield replace(job, progress=tell_progress, finished=tell_finished, log=log)


def _echo(line: str) -> None:
    typer.echo(line, err=True)
