"""Distillation: images a second of a plain torch loop with a live teacher, of timm's task, and of ours.

Every row trains the same student at the same size, batch, steps, precision and augmentation on the same run by KL and
AdamW, without averaged weights. Each runs in a process of its own; its first steps are not counted. An image counts
once for each student that learns from it. The time of a step is split in waiting for data, the teacher's pass, and the
rest: the student's. On CUDA all three are the device's time. `bytes_per_image` is what was read of files, from the page
cache too; the torch loader of ours keeps small runs decoded. Memory is the training process's peak and what its
workers have of their own; `cuda_bytes` is what it has taken of the device. `three_runs` are three students one after
another, `three_students` three at once. Repeats run every row once, one after the other; ratios are medians of ratios
within a repeat. `same_work`: as many images, a loss that falls, and targets of the first batch that are those of
another row with the same order and views (`target_difference`, of the largest of them).
"""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import harness
from benchmarks.distill_row import VARIANTS, WARM, Variant
from benchmarks.guided import with_assignments
from benchmarks.options import Options
from prism_fast.config import RunConfig
from prism_fast.config.views import WHOLE_CLASSES
from prism_fast.data.loader import reasons
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.view_labels import open_view_labels
from prism_fast.errors import DataError, InputError
from prism_fast.workers.synthesize import synthesize

Targets = np.ndarray[Any, np.dtype[np.float32]]

COLUMNS = (
    "variant",
    "images_per_s.p20",
    "images_per_s.p50",
    "images_per_s.p80",
    "ratio_to_plain",
    "data_wait",
    "teacher_share",
    "student_share",
    "bytes_per_image",
    "peak_rss_bytes",
    "cuda_bytes",
    "loss_first",
    "loss_last",
    "target_difference",
    "same_work",
)
#: Of a run that is made for the benchmark, whose pictures need not be good ones.
_IMAGES, _STEPS, _VIEWS = 512, 4, 4
#: Part of the largest target. Stored views are in half precision, and a live teacher may compute in it.
_TOLERANCE = {"float32": 0.01, "bfloat16": 0.05, "float16": 0.01}
_HIGHEST = 5


@contextmanager
def _place(options: Options) -> Iterator[Path]:
    """Where runs are written: a folder that is kept, or a temporary one."""
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        yield options.out
        return
    with tempfile.TemporaryDirectory(prefix="prism-bench-") as scratch:
        yield Path(scratch)


def make_run(config: RunConfig, out: Path, device: str) -> Path:
    """An unguided run of the configuration, with views as its student sees them; a finished one is taken as it is."""
    distill = config.distill
    same = {"image_size": distill.image_size, "crop_scale": distill.crop_scale, "flip": distill.flip}
    views = config.views.model_copy(update={"count": _VIEWS, **same})
    plain = ["guidance.enabled=false", "engines.backend=eager", "launch.streams=1", f"sampling.device={device}"]
    sizes = [f"synthesis.images={min(config.synthesis.images, _IMAGES)}", f"sampling.steps={_STEPS}"]
    harness.log(f"making a run in {out}")
    synthesize(with_assignments(config, [*plain, *sizes]).model_copy(update={"views": views}), out)
    return out


def _able(variant: Variant, why_no_views: str | None, device: torch.device) -> bool:
    why = reasons(variant.loader, device) if variant.by == "ours" else []
    if variant.teacher == "views" and why_no_views:
        why = [*why, why_no_views]
    if why:
        harness.log(f"{variant.name} is left out: {'; '.join(why)}")
    return not why


def _alike(config: RunConfig, run: Path) -> tuple[RunConfig, str | None]:
    """The configuration with whose views all rows are trained: those that the run has labels of, or why it has none."""
    try:
        labelling = open_view_labels(ShardSet.discover(run, check=False), check=False).labelling
    except DataError as error:
        return config, str(error)
    same = {"seed": labelling.seed, "crop_scale": labelling.crop_scale, "flip": labelling.flip}
    return config.model_copy(update={"distill": config.distill.model_copy(update=same)}), None


def _chosen(only: Sequence[str]) -> list[Variant]:
    names = [one.name for one in VARIANTS]
    if unknown := [name for name in only if name not in names]:
        raise InputError(f"--only {unknown[0]}: bench distill has the rows {', '.join(names)}")
    return [one for one in VARIANTS if not only or one.name in only]


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """Every row that can run here, on ``options.run`` or on a run made for it.

    Raises:
        InputError: there is no such row. RunError: a row failed.
    """
    if options.student:
        config = config.model_copy(update={"distill": config.distill.model_copy(update={"student": options.student})})
    chosen, device = _chosen(options.only), torch.device(options.device)
    with _place(options) as place:
        run = options.run or make_run(config, place / "run", options.device)
        config, why = _alike(config, run)
        able = [one for one in chosen if _able(one, why, device)]
        repeats = [[_spawn(one, config, run, place, options) for one in able] for _ in range(options.repeats)]
        targets = {one.name: np.load(place / one.name / "targets.npy") for one in able}
    steps, batch = options.steps, config.distill.batch_size
    found = zip(able, zip(*repeats, strict=True), strict=True)
    rows = [_joined(one, list(own), steps * batch) for one, own in found]
    seconds = {row["variant"]: row["seconds_per_image"] for row in rows}
    for one, row in zip(able, rows, strict=True):
        row["ratio_to_plain"] = _ratio(seconds.get("plain"), row["seconds_per_image"])
        row["target_difference"] = _difference(targets.get(one.like or ""), targets[one.name])
        row["same_work"] = _same_work(row, (WARM + steps) * batch * one.runs, _TOLERANCE[config.distill.precision])
    return rows


def _spawn(variant: Variant, config: RunConfig, run: Path, place: Path, options: Options) -> harness.Row:
    out = place / variant.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    document = out / "config.json"
    document.write_text(config.model_dump_json())
    paths = [str(path.resolve()) for path in (document, run, out)]
    arguments = [variant.name, *paths, str(options.steps), options.device]
    row: harness.Row = harness.run_apart(f"row {variant.name}", "benchmarks.distill_row", *arguments)
    waited = row["wait_s"] / row["seconds"]
    harness.log(f"{variant.name}: {row['seconds']:.1f} s, {waited:.1%} waiting for data, loss {row['loss_last']:.3g}")
    return row


def _joined(variant: Variant, repeats: list[harness.Row], images: int) -> harness.Row:
    """One variant's repeats as a row; ``images`` is what a student of it learns from in the counted steps."""
    seen = images * variant.runs * variant.students
    seconds = [row["seconds"] for row in repeats]
    wait, teacher = (statistics.median(row[key] / row["seconds"] for row in repeats) for key in ("wait_s", "teacher_s"))
    return {
        **repeats[0],
        "seconds": seconds,
        "seconds_per_image": [one / seen for one in seconds],
        "images_per_s": harness.percentiles(seconds, 0.0).rate(seen),
        "data_wait": wait,
        "teacher_share": teacher,
        "student_share": 1 - wait - teacher,
        "bytes_per_image": statistics.median(row["read_bytes"] for row in repeats) / seen,
        "peak_rss_bytes": max(row["peak_rss_bytes"] for row in repeats),
    }


def _ratio(baseline: Sequence[float] | None, seconds: Sequence[float]) -> float | None:
    return statistics.median(b / own for b, own in zip(baseline, seconds, strict=True)) if baseline else None


def _difference(wanted: Targets | None, own: Targets) -> float | None:
    """Largest difference of the first batch's targets from those of the row that has the same, of the largest of them.

    Of many classes those that are highest, for only of these are a view's logits stored one by one.
    """
    if wanted is None or wanted.shape != own.shape:
        return None if wanted is None else math.inf
    kept = wanted.shape[1] if wanted.shape[1] <= WHOLE_CLASSES else _HIGHEST
    places = np.argsort(-wanted, axis=1)[:, :kept]
    wanted, own = (np.take_along_axis(one, places, axis=1) for one in (wanted, own))
    return float(np.abs(own - wanted).max() / max(1.0, np.abs(wanted).max()))


def _same_work(row: harness.Row, images: int, tolerance: float) -> str:
    """``no`` and why not."""
    difference, why = row["target_difference"], list[str]()
    if row["all_images"] != images:
        why.append(f"{row['all_images']} images, not {images}")
    if not row["loss_last"] < row["loss_first"]:
        why.append("its loss does not fall")
    if difference is not None and not difference <= tolerance:
        why.append("its targets are others")
    return f"no: {', '.join(why)}" if why else "yes"
