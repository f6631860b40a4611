"""``prism-fast configs``."""

from __future__ import annotations

from typing import Annotated

import typer

from prism_fast.cli.common import JsonOpt, echo_json


def configs(
    name: Annotated[str | None, typer.Argument(help="Print this configuration in full.")] = None,
    json_output: JsonOpt = False,
) -> None:
    """List the bundled configurations, or print one."""
    from prism_fast.config import bundled_configs, load_config

    if name is not None:
        import yaml

        data = load_config(name).model_dump(mode="json")
        echo_json(data) if json_output else typer.echo(yaml.safe_dump(data, sort_keys=False))
        return
    found = bundled_configs()
    if json_output:
        echo_json(found)
        return
    for key, description in found.items():
        typer.echo(f"{key:24} {description}")
