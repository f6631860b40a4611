"""``prism-fast build-engines``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, SetOpt, StoreOpt, echo_json, log
from prism_fast.storage.paths import local_path

if TYPE_CHECKING:
    from prism_fast.compile.build import Built, Refused


def build_engines(
    config: ConfigArg,
    backend: Annotated[
        str, typer.Option("--backend", help="auto (all that can run here), all (all that can build here), or a name.")
    ] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = "auto",
    parts: Annotated[
        str | None, typer.Option("--parts", help="Comma-separated; default: those that the configuration computes.")
    ] = None,
    store: StoreOpt = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table", parser=local_path, help="Also write the table into this Markdown page, between its markers."
        ),
    ] = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Compile what a run computes, the energy gradient included; each engine is kept only if it agrees with eager."""
    from prism_fast import build_engines as build
    from prism_fast import load_config

    names = tuple(name.strip() for name in parts.split(",")) if parts else ()
    settings = load_config(config, set_ or ())
    lines = build(settings, backend=backend, precision=precision, parts=names, store=store, log=log)
    if table is not None:
        from prism_fast.compile.page import as_markdown, write_table

        write_table(table, as_markdown(lines.built, lines.refused))
    if json_output:
        from dataclasses import asdict

        echo_json([asdict(line) for line in lines.built])
    else:
        _print(lines.built, lines.refused)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _print(built: list[Built], refused: list[Refused]) -> None:
    """A table of at most 80 columns; what does not fit a column follows as a line."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("part", "backend", "prec."):
        table.add_column(name, no_wrap=True)
    for name in ("MB", "build\ns", "error", "cosine", "×\neager", "even at\nimages"):
        table.add_column(name, justify="right", no_wrap=True)
    for b in built:
        table.add_row(
            b.part,
            b.backend,
            b.precision,
            f"{b.size_bytes / 1e6:.1f}",
            f"{b.build_s:.1f}",
            f"{b.rel_error:.1e}",
            f"{b.cosine:.5f}",
            _number(b.speedup_vs_eager, ".2f"),
            _number(b.break_even_images, "d"),
        )
    console = Console(highlight=False)
    console.print(table)
    for b in built:
        if b.gated_through != b.backend:
            console.print(f"{b.part}, {b.backend}: checked by {b.gated_through}", markup=False, soft_wrap=True)
    for one in refused:
        console.print(f"{one.part}, {one.backend}: {one.reason}", markup=False, soft_wrap=True)
