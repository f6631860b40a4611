"""``prism-fast kernels``: what the fused operators are, what runs them here, and what they compile to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import JsonOpt, echo_json, log

if TYPE_CHECKING:
    from prism_kernels.compile import KernelReport

_COLUMNS = ("op", "shape", "dtype", "arch", "registers", "spills", "shared_bytes", "load_bits", "store_bits", "bytes")


def kernels(
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile every kernel for sm_80, sm_90 and sm_100; needs no GPU.")
    ] = False,
    json_output: JsonOpt = False,
) -> None:
    """List the fused operators and what runs them here; with --compile, registers, spills, widths and bytes."""
    if compile_:
        _compile(json_output)
    else:
        _list(json_output)


def _list(json_output: bool) -> None:
    import prism_kernels
    from prism_kernels._registry import OPS

    if not json_output:
        typer.echo(prism_kernels.explain())
        return
    echo_json(
        [
            {"op": name, "formula": spec.formula, "dtypes": spec.dtypes, "reasons": prism_kernels.reasons(name)}
            for name, spec in sorted(OPS.items())
        ]
    )


def _compile(json_output: bool) -> None:
    from prism_kernels.compile import check, compile_kernels

    reports = compile_kernels(done=lambda r: log(f"compiled {r.op} {r.dtype} {r.arch}"))
    missed = {f"{r.op} {r.shape} {r.dtype} {r.arch}": check(r) for r in reports}
    if json_output:
        echo_json([asdict(r) | {"missed": check(r)} for r in reports])
    else:
        _print_table(reports)
    for name, found in missed.items():
        for reason in found:
            typer.echo(f"{name}: {reason}", err=True)
    if any(missed.values()):
        raise typer.Exit(1)


def _print_table(reports: list[KernelReport]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*_COLUMNS, "bytes_min")
    for report in reports:
        table.add_row(*(str(getattr(report, name)) for name in (*_COLUMNS, "bytes_min")))
    console = Console()
    console.width = max(console.width, 150)  # numbers cut to fit a terminal are of no use; let it wrap
    console.print(table)
