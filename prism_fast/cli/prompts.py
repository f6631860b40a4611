"""``prism-fast prompts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, SetOpt, echo_json
from prism_fast.storage.paths import local_path


def prompts(
    config: ConfigArg,
    out: Annotated[
        Path | None, typer.Option("--out", parser=local_path, help="Write the plan to this Parquet file.")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", help="Number of rows.")] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="Show this class only.")] = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Show or write the plan: one prompt a sample."""
    from dataclasses import asdict

    from prism_fast.config import load_config
    from prism_fast.dataset.plan import build_plan, write_plan
    from prism_fast.errors import InputError
    from prism_fast.labels.load import load_label_space

    assignments = [*(set_ or ()), *([f"synthesis.images={images}"] if images is not None else [])]
    settings = load_config(config, tuple(assignments))
    if out is not None:
        try:
            rows = write_plan(settings, out)
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror or error}") from error
        if json_output:
            echo_json({"rows": rows, "out": str(out)})
        else:
            typer.echo(f"{rows} rows in {out}")
        return
    label = load_label_space(settings.labels).index(class_name) if class_name is not None else None
    found = [r for r in build_plan(settings, settings.synthesis.images) if label in (None, r.label)]
    if json_output:
        echo_json([asdict(row) for row in found])
        return
    for row in found:
        typer.echo(f"{row.index:>8}  {row.class_name:20}  {row.prompt}")
