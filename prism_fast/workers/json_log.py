"""Log lines and finished shards as JSON, one object a line on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism_fast.dataset.record import Record

_LOG = logging.getLogger("prism_fast")


@contextmanager
def json_log(worker: str | None = None) -> Iterator[None]:
    """Every logger's lines as JSON while inside, ours from INFO on; ``worker`` is said in each of them."""
    from pythonjsonlogger.json import JsonFormatter

    handler = logging.StreamHandler(sys.stderr)
    names = {"levelname": "level", "message": "event"}
    fixed = {"worker": worker} if worker else {}
    handler.setFormatter(
        JsonFormatter("%(levelname)s %(message)s", rename_fields=names, static_fields=fixed, timestamp="time")
    )
    before = _LOG.level
    logging.root.addHandler(handler)
    _LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
        _LOG.setLevel(before)


def log_shard(record: Record) -> None:
    """Say that a shard is finished."""
    _LOG.info(
        "shard finished",
        extra={
            "shard": record.shard,
            "images": record.rows,
            "quarantined": len(record.quarantined),
            "seconds": record.seconds,
            "images_per_s": round(record.planned / record.seconds, 3) if record.seconds else None,
            "energy_after_mean": record.energy_after_mean,
        },
    )
