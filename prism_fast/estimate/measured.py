"""A measured rate in place of a roofline: the rows that ``prism-fast bench guided --json FILE`` writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prism_fast.errors import DataError, InputError


@dataclass(frozen=True)
class Measured:
    """Images a second of one device, and where the number comes from.

    ``start_s``: from the start of a process to its first batch; 0 when the file does not say.
    """

    images_per_s: float
    variant: str
    device: str
    file: Path
    start_s: float = 0.0


def read_bench(file: Path, config_name: str, variant: str = "ours") -> Measured:
    """The median rate of one row, and its seconds before the first batch.

    Raises:
        DataError: not such a file. InputError: it measured another configuration, or has no such row.
    """
    try:
        document = json.loads(file.read_text())
        rows = {row["variant"]: float(row["images_per_s"]["p50"]) for row in document["rows"]}
        starts = {row["variant"]: float(row.get("start_s", 0.0)) for row in document["rows"]}
        config, device = str(document["config"]), str(document["environment"]["device"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not what 'prism-fast bench guided --json {file}' writes: {error!r}") from error
    if config != config_name:
        raise InputError(f"{file} measured {config!r}, but the plan is for {config_name!r}; run the benchmark with it")
    if rows.get(variant, 0.0) <= 0:
        raise InputError(f"{file} has no rate of {variant!r}; it has: {', '.join(rows)}")
    return Measured(rows[variant], variant, device, file, starts[variant])
