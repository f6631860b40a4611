"""``prism-fast engines``: what the store of built engines holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import JsonOpt, StoreOpt, echo_json

if TYPE_CHECKING:
    from prism_engines.record import EngineRecord
    from prism_engines.store import Store
    from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="Look at stored engines, check them, remove what is of no use.")


def _open(store: Path | None) -> Store:
    from prism_engines.store import Store, default_store

    return Store(store or default_store())


def _facts(record: EngineRecord) -> dict[str, object]:
    from dataclasses import asdict

    return {"digest": record.digest, **asdict(record)}


@app.command("list")
def list_(store: StoreOpt = None, json_output: JsonOpt = False) -> None:
    """List the stored engines."""
    opened = _open(store)
    records = opened.records()
    if json_output:
        echo_json([_facts(record) for record in records])
        return
    if not records:
        typer.echo(f"no engines in {opened.root}; 'prism-fast build-engines' makes them")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("digest", no_wrap=True)
    for name in ("part", "batch", "type", "backend", "target", "MB", "build s"):
        table.add_column(name, overflow="fold")
    for r in records:
        backend, numbers = f"{r.key.backend} {r.key.backend_version}", (f"{r.size_bytes / 1e6:.1f}", f"{r.build_s:.1f}")
        table.add_row(r.digest[:8], r.spec.part, str(r.spec.batch), r.spec.precision, backend, r.key.target, *numbers)
    Console().print(table)


@app.command()
def show(
    digest: Annotated[str, typer.Argument(help="Digest of an engine, or its first characters.")],
    store: StoreOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Show one engine: key, inputs, files and what its gate measured."""
    opened = _open(store)
    record = opened.by_prefix(digest)
    if json_output:
        echo_json(_facts(record))
        return
    from rich.console import Console

    Console().print(_table(record, opened.folder(record.digest)))


def _table(record: EngineRecord, folder: Path) -> Table:
    from dataclasses import asdict

    from rich.table import Table
    from rich.text import Text

    rows: list[tuple[str, object]] = [("digest", record.digest), ("folder", folder)]
    rows += [(name, value) for name, value in asdict(record.key).items() if name != "inputs"]
    rows += [(f"input {t.name}", f"{t.dtype} {t.shape}") for t in record.spec.inputs]
    rows += [("outputs", ", ".join(record.spec.outputs))]
    rows += [(f"file {f.name}", f"{f.size_bytes} bytes, {f.sha256[:12]}") for f in record.files]
    rows += [(f"gate {name}", value) for name, value in record.gate.items()]
    rows += [("built in s", record.build_s), ("created", record.created)]
    table = Table(show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(str(value)))
    return table


@app.command()
def verify(store: StoreOpt = None, json_output: JsonOpt = False) -> None:
    """Read every byte of every engine and compare it with its record."""
    opened = _open(store)
    problems, engines = opened.verify(), len(opened.records())
    if json_output:
        echo_json({"engines": engines, "problems": [{"digest": d, "problem": p} for d, p in problems]})
    else:
        for digest, problem in problems:
            typer.echo(f"error: {digest[:12]}: {problem}; run 'prism-fast engines prune'", err=True)
        typer.echo(f"{engines} engines in {opened.root}, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


@app.command()
def prune(
    store: StoreOpt = None,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Also remove what an installed backend built in another version.")
    ] = False,
    json_output: JsonOpt = False,
) -> None:
    """Remove damaged engines and what killed builds left behind."""
    opened = _open(store)
    removed = opened.prune(_installed() if outdated else None)
    if json_output:
        echo_json([{"name": name, "reason": reason} for name, reason in removed])
        return
    for name, reason in removed:
        typer.echo(f"removed {name[:12]}: {reason}")
    typer.echo(f"{len(removed)} removed, {len(opened.records())} engines in {opened.root}")


def _installed() -> dict[str, str]:
    from prism_engines.backends import backends

    return {name: backend.version() for name, backend in backends().items()}
