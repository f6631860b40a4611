"""``prism-fast stats``."""

from __future__ import annotations

import typer

from prism_fast.cli.common import JsonOpt, RunArg, echo_json


def stats(run: RunArg, json_output: JsonOpt = False) -> None:
    """Count a run, finished or not: images, shards, bytes, classes, energies, speed. Opens no tar."""
    from dataclasses import asdict

    from prism_fast.operations.stats import stats as count

    found = count(run)
    if json_output:
        echo_json(asdict(found))
        return
    spread = found.images_by_class
    rows = {
        "run": found.run_hash[:12],
        "images": f"{found.images} of {found.images_planned}, {found.quarantined} quarantined",
        "shards": f"{found.shards} of {found.shards_planned}, {found.size_bytes / 1e6:.1f} MB",
        "images by class": f"{spread.min} to {spread.max}, mean {spread.mean:.1f}, {found.classes} classes",
        "objective before": _number(found.objective_before_mean),
        "energy after": _number(found.energy_after_mean),
        "images a second": _number(found.images_per_s),
    }
    for name, text in rows.items():
        typer.echo(f"{name:<17} {text}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
