"""How a synthesis goes, as metrics that Prometheus scrapes from a port."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prism_fast.errors import InputError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from prism_fast.dataset.record import Record


class RunMetrics:
    """Metrics of a run and of the process that makes it; what only a finished shard has is NaN until there is one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"prism_fast_{name}", text, registry=registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"prism_fast_{name}", text, registry=registry)

        self._run_finished = gauge("run_images_finished", "Images of the run's finished shards, whoever made them")
        self._run_planned = gauge("run_images_planned", "Images of the whole run")
        self._rate = gauge("images_per_second", "Images a second of this process, over its finished shards")
        self._made = counter("images_made", "Images that this process has made")
        self._shards = counter("shards_committed", "Shards that this process has committed")
        self._quarantined = counter("samples_quarantined", "Samples left out because they did not stay finite")
        self._seconds = gauge("shard_seconds", "Seconds that the latest shard took")
        self._energy = gauge("shard_energy_after_mean", "Mean final energy of the latest shard")
        self._seconds.set(math.nan)
        self._energy.set(math.nan)

    def progress(self, finished: int, planned: int, images_per_s: float) -> None:
        """The run as it is now."""
        self._run_finished.set(finished)
        self._run_planned.set(planned)
        self._rate.set(images_per_s)

    def finished(self, record: Record) -> None:
        """One more shard."""
        self._made.inc(record.rows)
        self._shards.inc()
        self._quarantined.inc(len(record.quarantined))
        self._seconds.set(record.seconds)
        self._energy.set(math.nan if record.energy_after_mean is None else record.energy_after_mean)


@contextmanager
def serve(port: int) -> Iterator[RunMetrics]:
    """Metrics that are served on ``port`` of every interface while inside.

    Raises:
        InputError: prometheus_client is not installed, or the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise InputError(
            "--metrics-port needs prometheus_client, which is not installed; pip install 'prism-fast[metrics]'"
        ) from error
    registry = CollectorRegistry()  # of its own: without the Python process's metrics
    metrics = RunMetrics(registry)
    try:
        server, thread = start_http_server(port, registry=registry)
    except OSError as error:
        raise InputError(f"--metrics-port {port}: {error.strerror or error}; choose another port") from error
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
