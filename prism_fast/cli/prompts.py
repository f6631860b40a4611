"""``prism-fast prompts``: a configuration shows its plan, or one of the words below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from prism_fast.cli.common import ConfigArg, JsonOpt, SetOpt, echo_json
from prism_fast.cli.prompts_check import check
from prism_fast.cli.prompts_stats import stats
from prism_fast.cli.prompts_write import write
from prism_fast.storage.paths import local_path

if TYPE_CHECKING:
    from prism_fast.config import RunConfig
    from prism_fast.dataset.draws import Draws


class _ShowUnlessNamed(TyperGroup):
    """``prompts CONFIG`` is ``prompts show CONFIG``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the word in front that is left out."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ShowUnlessNamed,
    no_args_is_help=True,
    help="Show or write the plan of a configuration (prompts CONFIG); check, measure or write a prompt bank.",
)


@app.command()
def show(
    config: ConfigArg,
    out: Annotated[
        Path | None, typer.Option("--out", parser=local_path, help="Write the plan to this Parquet file.")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", help="Number of rows.")] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="Show this class only.")] = None,
    sample: Annotated[int | None, typer.Option("--sample", min=1, help="Show so many rows, drawn at random.")] = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Show or write the plan: one prompt a sample."""
    import random
    from dataclasses import asdict

    from prism_fast.config import load_config
    from prism_fast.dataset.plan import build_plan, write_plan
    from prism_fast.errors import InputError
    from prism_fast.labels.load import load_label_space

    assignments = [*(set_ or ()), *([f"synthesis.images={images}"] if images is not None else [])]
    settings = load_config(config, tuple(assignments))
    draws = _draws(settings)
    if out is not None:
        try:
            rows = write_plan(settings, out, draws=draws)
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror or error}") from error
        if json_output:
            echo_json({"rows": rows, "out": str(out)})
        else:
            typer.echo(f"{rows} rows in {out}")
        return
    label = load_label_space(settings.labels).index(class_name) if class_name is not None else None
    found = [r for r in build_plan(settings, settings.synthesis.images, draws) if label in (None, r.label)]
    if sample is not None:
        found = sorted(random.Random(settings.seed).sample(found, min(sample, len(found))), key=lambda row: row.index)
    if json_output:
        echo_json([asdict(row) for row in found])
        return
    for row in found:
        typer.echo(f"{row.index:>8}  {row.class_name:20}  {row.prompt}")


def _draws(settings: RunConfig) -> Draws | None:
    """What is picked; None where classes take turns, which needs no model."""
    if settings.prompts.select == "stratified":
        return None
    from prism_fast.process import prepare

    prepare()
    from prism_fast.synthesis.coverage import drawn

    return drawn(settings)


@app.command()
def lint(config: ConfigArg, set_: SetOpt = None, json_output: JsonOpt = False) -> None:
    """Check the prompt bank of a configuration: form, grammar, senses, lengths. Exit code 2 if something is wrong."""
    from dataclasses import asdict

    from prism_fast.config import load_config
    from prism_fast.errors import ConfigError
    from prism_fast.prompts.checked import check_bank

    found = check_bank(load_config(config, tuple(set_ or ())))
    if json_output:
        echo_json(asdict(found))
    else:
        for complaint in found.complaints:
            typer.echo(f"{complaint.key}: {complaint.problem}")
        typer.echo(f"{found.classes} classes, {len(found.complaints)} problems, {found.counted}")
    if found.complaints:
        raise ConfigError(f"the prompt bank has {len(found.complaints)} problems")


for _command in (check, stats, write):
    app.command()(_command)
