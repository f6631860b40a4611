"""``prism-fast plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_fast.cli.common import ConfigArg, JsonOpt, SetOpt, StoreOpt, echo_json
from prism_fast.process import prepare
from prism_fast.storage.paths import local_path

if TYPE_CHECKING:
    from rich.table import Table

    from prism_fast.estimate.distillation import Distillation
    from prism_fast.estimate.estimate import Estimate


def plan(
    config: ConfigArg,
    device: Annotated[str, typer.Option("--device", help="t4, l4, l40s, a100, h100, h200 or b200.")] = "h100",
    count: Annotated[int, typer.Option("--count", min=1, help="Number of devices.")] = 1,
    images: Annotated[str | None, typer.Option("--images", help="For example 1.28e6; default: the run's.")] = None,
    price: Annotated[float | None, typer.Option("--price", min=0, help="USD for an hour of one device.")] = None,
    bench: Annotated[
        Path | None, typer.Option("--bench", parser=local_path, help="File of 'bench guided --json': its rate.")
    ] = None,
    row: Annotated[str, typer.Option("--row", help="Row of that file.")] = "ours",
    efficiency: Annotated[float, typer.Option("--efficiency", min=0.01, max=1, help="Part of the peak.")] = 0.45,
    store: StoreOpt = None,
    set_: SetOpt = None,
    json_output: JsonOpt = False,
) -> None:
    """Estimate time, cost, storage and memory of a run, with every assumption; nothing is loaded or made."""
    from prism_fast.config import load_config
    from prism_fast.estimate.devices import find_device

    settings, chosen = load_config(config, set_ or ()), find_device(device)
    prepare()
    from prism_fast.compile.tune import with_tuned_batch
    from prism_fast.estimate.count import count_run
    from prism_fast.estimate.estimate import Efficiency, Request, make_estimate
    from prism_fast.estimate.measured import read_bench
    from prism_fast.estimate.outline import outline_run

    settings = with_tuned_batch(settings, store)
    wanted = settings.synthesis.images if images is None else _whole(images)
    usd = chosen.usd_per_hour if price is None else price
    measured = read_bench(bench, settings.name, row) if bench else None
    price_from = "a round number of ours, not an offer; give --price" if price is None else "as given"
    request = Request(wanted, count, usd, Efficiency(compute=efficiency), price_from)
    made = make_estimate(settings, count_run(outline_run(settings)), request, chosen, measured)
    if json_output:
        from dataclasses import asdict

        echo_json(asdict(made))
    else:
        _print(made)


def _whole(text: str) -> int:
    """``1.28e6`` as 1280000."""
    from prism_fast.errors import InputError

    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 1 <= number < 1e15 or number != int(number):
        raise InputError(f"--images {text} is not a positive whole number, for example 1280000 or 1.28e6")
    return int(number)


def _table(made: Estimate) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("part", no_wrap=True)
    for name in ("calls", "TFLOP/image", "GB/image", "ms/image", "share", "bound by"):
        table.add_column(name, overflow="fold")
    for part in made.parts:
        numbers = (f"{x:.3g}" for x in (part.tflop_per_image, part.gb_moved_per_image, part.ms_per_image))
        table.add_row(part.part, str(part.calls), *numbers, f"{part.share:.0%}", part.limit)
    return table


def _distilled(made: Distillation | None) -> list[tuple[str, str]]:
    """What its students take beside the run."""
    if made is None:
        return []
    seen = {
        "stored": "stored logits",
        "live": "a live teacher",
        "views": f"{made.teacher_images} views labelled before",
    }
    work = (
        f"{made.steps} steps of {made.batch_size}, {made.students_gmac:.3g} GMAC an image forward, {seen[made.teacher]}"
    )
    cost = f"{made.hours:.3g} h, {made.gpu_hours:.4g} GPU-hours, {made.usd:.4g} USD in {made.precision}"
    lines = [("distill", f"{', '.join(made.students)}: {work}"), ("", cost)]
    return [*lines, *(("assumed", f"distill: {line}") for line in made.assumptions)]


def _print(made: Estimate) -> None:
    from rich.console import Console

    fits = {True: "fits", False: "does not fit: choose a smaller sampling.batch_size", None: "not checked"}[made.fits]
    Console().print(_table(made))
    for name, text in (
        ("images", f"{made.images} in {made.shards} shards"),
        ("time", f"{made.hours:.3g} h on {made.devices} devices, {made.images_per_s_device:.3g} images/s each"),
        ("cost", f"{made.gpu_hours:.4g} GPU-hours, {made.usd:.4g} USD"),
        ("storage", f"{made.storage_bytes / 1e9:.4g} GB"),
        ("memory", f"{made.peak_memory_bytes / 1e9:.3g} GB in {made.precision}, {fits}"),
        ("limit", made.limited_by),
        *(("assumed", line) for line in made.assumptions),
        *_distilled(made.distillation),
    ):
        typer.echo(f"{name:8} {text}")
