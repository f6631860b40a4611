"""``prism-fast tune``."""

from __future__ import annotations

from typing import Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, SetOpt, StoreOpt, echo_json, log
from prism_fast.process import prepare


def tune(
    config: ConfigArg,
    largest: Annotated[int, typer.Option("--largest", min=1, help="Largest batch size to try.")] = 256,
    store: StoreOpt = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Find this device's batch size; ``sampling.batch_size=auto`` uses it from then on."""
    from prism_fast import load_config

    settings = load_config(config, set_ or ())
    prepare()
    from dataclasses import asdict

    from prism_engines.store import default_store

    from prism_fast.compile.tune import tune as search

    found = search(settings, store or default_store(), largest, log)
    if json_output:
        echo_json(asdict(found))
    else:
        typer.echo(f"sampling.batch_size {found.batch_size} on {found.device}")
