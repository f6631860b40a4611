"""``prism-fast build-engines``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, SetOpt, StoreOpt, echo_json, prepare

if TYPE_CHECKING:
    from prism_fast.compile.build import Built, Refused

_PARTS = "text_encoder,unet,decoder,energy_gradient"


def build_engines(
    config: ConfigArg,
    backend: Annotated[
        str, typer.Option("--backend", help="auto (all that can run here), all (all that can build here), or a name.")
    ] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = "auto",
    parts: Annotated[
        str, typer.Option("--parts", help="Comma-separated; also unet_deep and unet_shallow, for feature reuse.")
    ] = _PARTS,
    store: StoreOpt = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Compile what a run computes, the energy gradient included; each engine is checked against eager before it is kept."""
    from prism_fast.config import load_config

    settings = load_config(config, tuple(set_ or ()))
    prepare()
    from prism_fast.compile.command import build_all

    lines = build_all(settings, backend, precision, tuple(parts.split(",")), store, lambda s: typer.echo(s, err=True))
    if json_output:
        from dataclasses import asdict

        echo_json([asdict(line) for line in lines.built])
    else:
        _print(lines.built, lines.refused)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _print(built: list[Built], refused: list[Refused]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("part", "backend", "precision", "MB", "build s", "error", "cosine", "× eager", "pays off after", "gate"):
        table.add_column(name)
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
            _number(b.break_even_images, "d") + (" images" if b.break_even_images else ""),
            b.gated_through,
        )
    console = Console()
    console.print(table)
    for one in refused:
        console.print(f"{one.part}, {one.backend}: {one.reason}", markup=False, highlight=False)
