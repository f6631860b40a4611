"""``prism-fast seeds``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, ProgressBars, echo_json
from prism_fast.process import prepare
from prism_fast.storage.paths import local_path


def seeds(
    demo: Annotated[Path, typer.Argument(parser=local_path, help="What 'demo' wrote.")] = Path("runs/demo"),
    count: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds, the demo's own included.")] = 3,
    json_output: JsonOpt = False,
) -> None:
    """Train the demo's students with more seeds and print the table of docs/results.md."""
    prepare()
    from prism_fast.experiments.seeds import as_markdown, run_seeds

    rows = run_seeds(demo, count, ProgressBars())
    if json_output:
        echo_json(rows)
    else:
        typer.echo(as_markdown(rows))
