"""``prism-fast bench``: run a benchmark of the source checkout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import SetOpt, StoreOpt
from prism_fast.process import prepare
from prism_fast.storage.paths import local_path

if TYPE_CHECKING:
    from prism_fast.config import RunConfig

NAMES = ("guided", "kernels", "engines", "loader", "distill", "memory", "shards", "stress")


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
    run: Annotated[
        Path | None, typer.Option("--run", parser=local_path, help="distill: a run, in place of --config.")
    ] = None,
    student: Annotated[str | None, typer.Option("--student", help="distill: timm name; default: the run's.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="distill: timed steps a row; default 40.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", parser=local_path, help="distill: where what is made is kept.")
    ] = None,
    set_: SetOpt = None,
) -> None:
    """Measure, and print the rows as a table; see benchmarks/RESULTS.md."""
    from prism_fast.errors import InputError

    if name not in NAMES:
        raise InputError(f"benchmark {name!r} is unknown, expected one of: {', '.join(NAMES)}")
    if name != "distill" and (run or student or steps or out):
        raise InputError(f"--run, --student, --steps and --out are for 'bench distill', not for 'bench {name}'")
    settings = _settings(config, run, set_ or ())
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
    command, options = import_module("benchmarks.command"), import_module("benchmarks.options").Options
    chosen = tuple(part.strip() for part in only.split(",") if part.strip())
    asked = options(device, repeats, chosen, store, run, student, steps or 40, out)
    typer.echo(command.run(name, settings, asked, json_file, page))


def _settings(config: str, run: Path | None, changes: Sequence[str]) -> RunConfig:
    """The run's own configuration if one is given."""
    from prism_fast.config import assign, load_config, parse_assignments

    if run is None:
        return load_config(config, changes)
    from prism_fast.dataset.run_directory import RunDirectory

    return assign(RunDirectory(run).config(), parse_assignments(changes))
