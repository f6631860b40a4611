"""``prism-fast bench``: run a benchmark of the source checkout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import SetOpt, StoreOpt
from prism_fast.process import prepare
from prism_fast.storage.paths import local_path

NAMES = ("guided", "kernels", "engines", "loader", "memory", "shards", "stress")


def bench(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(NAMES)}.")],
    config: Annotated[str, typer.Option("--config", help="Bundled configuration or YAML file.")] = "minis-emoji",
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed repetitions; one more warms up.")] = 4,
    only: Annotated[str, typer.Option("--only", help="Comma-separated rows; default: all.")] = "",
    json_file: Annotated[
        Path | None, typer.Option("--json", parser=local_path, help="Also write the rows to this file.")
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Also write the section of benchmarks/RESULTS.md.")] = False,
    store: StoreOpt = None,
    set_: SetOpt = None,
) -> None:
    """Measure, and print the rows as a table; see benchmarks/RESULTS.md."""
    from prism_fast.config import load_config
    from prism_fast.errors import InputError

    settings = load_config(config, set_ or ())
    if name not in NAMES:
        raise InputError(f"benchmark {name!r} is unknown, expected one of: {', '.join(NAMES)}")
    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "harness.py").is_file():
        raise InputError("benchmarks are not part of the installed package; run this in a source checkout")
    prepare()
    sys.path.insert(0, str(root))
    from importlib import import_module

    from prism_fast.compile.tune import with_tuned_batch
    from prism_fast.models.device import require_device

    require_device(device)
    settings = with_tuned_batch(settings, store)
    run = import_module("benchmarks.command").run
    chosen = tuple(part.strip() for part in only.split(",") if part.strip())
    typer.echo(run(name, settings, device, repeats, chosen, json_file, page, store))
