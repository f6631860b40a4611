"""The plan: one row a sample, written before the first sample is made."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prism_fast.config import RunConfig
from prism_fast.errors import ConfigError
from prism_fast.labels.space import LabelSpace, load_label_space
from prism_fast.prompts.select import plan_row

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("prompt", pa.string()),
        ("style", pa.string()),
        ("content", pa.string()),
        ("negative_prompt", pa.string()),
    ]
)


def _rows(config: RunConfig, space: LabelSpace, start: int, stop: int) -> pa.Table:
    try:
        rows = [plan_row(config.prompts, space, i, config.seed) for i in range(start, stop)]
    except KeyError as error:
        raise ConfigError(
            f"prompts: a template names the unknown field {error}; fields: style, content, name, sense, definition"
        ) from error
    except (ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"prompts: a template or content is not a valid format string: {error}") from error
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def build_plan(config: RunConfig, images: int) -> pa.Table:
    """Rows 0 to ``images`` - 1 of the run's plan. Row i does not depend on ``images``."""
    return _rows(config, load_label_space(config.labels), 0, images)


def write_plan(config: RunConfig, path: Path, chunk: int = 65_536) -> int:
    """Write the whole plan to Parquet in bounded memory; returns the number of rows."""
    space = load_label_space(config.labels)
    total = config.synthesis.images
    temporary = path.with_name(path.name + ".tmp")
    try:
        with pq.ParquetWriter(temporary, SCHEMA) as writer:
            for start in range(0, total, chunk):
                writer.write_table(_rows(config, space, start, min(start + chunk, total)))
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return total
