"""Run one benchmark by name: its rows as JSON, as a table, and as a section of the results page."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from benchmarks import harness
from benchmarks.options import Options
from prism_fast.config import RunConfig


def run(name: str, config: RunConfig, options: Options, json_file: Path | None, page: bool) -> str:
    """The table of benchmark ``name``; also written where it was asked for."""
    module = import_module(f"benchmarks.{name}")
    rows = module.bench(config, options)
    where = harness.environment(options.device)
    table = harness.as_table(module.COLUMNS, rows)
    if json_file:
        harness.write_json(json_file, name, config.name, where, rows)
    if page:
        selected = ", selected rows" if options.only else ""
        title = f"## {name} ({config.name}{selected})"
        note = " ".join((module.__doc__ or "").split())
        harness.write_section(
            f"{name} {config.name}{selected}", f"{title}\n\n{note}\n\n{harness.describe(where)}\n\n{table}"
        )
    return table
