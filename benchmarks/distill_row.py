"""One row of ``bench distill``, in a process of its own: a student trained by hand, by timm's task, or by ours."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks import harness, plain_distill
from benchmarks.split import CudaClock, Fed, HostClock, Split
from prism_fast.config import DistillConfig, RunConfig
from prism_fast.data.loader import open_loader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.parallel import World
from prism_fast.distillation.session import Session
from prism_fast.distillation.speed import for_training
from prism_fast.distillation.student import MEAN, STD, create_student
from prism_fast.distillation.task import Task
from prism_fast.distillation.train import make_trainer
from prism_fast.labels.load import load_label_space
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.models.label_space import for_label_space
from prism_fast.process import prepare

#: Steps before those that are counted: the loaders' queues are full, and the first lines of the log are written.
WARM = 10
#: Steps whose losses are averaged at the start and at the end; a line of our history holds as many.
_WINDOW = 10
#: What rows share of the recipe; all else is its default, and nothing of it makes a row do more than the others.
_KEPT = (
    "student",
    "image_size",
    "batch_size",
    "lr",
    "weight_decay",
    "clip_norm",
    "temperature",
    "crop_scale",
    "flip",
    "precision",
    "shuffle_bytes",
    "seed",
)


@dataclass(frozen=True)
class Variant:
    """A row of the table; ``like`` is the row whose first targets are the same."""

    name: str
    by: Literal["hand", "timm", "ours"] = "ours"
    teacher: Literal["stored", "views", "live"] = "stored"
    loader: Literal["dali", "torch"] = "dali"
    students: int = 1
    runs: int = 1
    like: str | None = None


VARIANTS = (
    Variant("plain", by="hand", teacher="live"),
    Variant("timm_task", by="timm", teacher="live", like="plain"),
    Variant("ours_stored"),
    Variant("ours_views", teacher="views", like="ours_live"),
    Variant("ours_live", teacher="live"),
    Variant("ours_stored_torch", loader="torch", like="ours_stored"),
    Variant("ours_views_torch", teacher="views", loader="torch", like="ours_live_torch"),
    Variant("ours_live_torch", teacher="live", loader="torch"),
    Variant("three_runs", runs=3, like="ours_stored"),
    Variant("three_students", students=3, like="ours_stored"),
)


def recipe_of(config: DistillConfig, variant: Variant, steps: int) -> DistillConfig:
    """What a row trains by."""
    kept: dict[str, Any] = {name: getattr(config, name) for name in _KEPT}
    several = [{"name": f"student{i}"} for i in range(variant.students)] if variant.students > 1 else []
    fixed = {"steps": steps, "checkpoint_every": steps, "warmup_steps": 0, "ema_decay": 0.0, "students": several}
    return DistillConfig(**kept, **fixed, teacher=variant.teacher, loader=variant.loader)


def run_variant(config: RunConfig, name: str, run: Path, out: Path, steps: int, device: torch.device) -> harness.Row:
    """Train a row's students in ``out``; ``steps`` are counted."""
    variant, taken = next(one for one in VARIANTS if one.name == name), _taken(device)
    recipe, shards = recipe_of(config.distill, variant, WARM + steps), ShardSet.discover(run, check=False)
    teacher = _teacher(config) if variant.teacher == "live" else None
    splits, losses = list[Split](), list[float]()
    for number in range(variant.runs):
        split = Split(CudaClock() if device.type == "cuda" else HostClock(), WARM, taken)
        with for_training(device):
            if variant.by == "ours":
                losses = _train_ours(recipe, shards, teacher, out / str(number), split, device)
            else:
                assert teacher is not None  # these rows' teachers are live
                losses = _train_plain(variant, recipe, shards, teacher, split, device)
        splits.append(split)
    targets = splits[0].targets
    assert targets is not None  # there was a first batch
    np.save(out / "targets.npy", targets.float().cpu().numpy())
    return {"variant": name, "loss_first": losses[0], "loss_last": losses[-1], **_together(splits)}


def _together(splits: Sequence[Split]) -> harness.Row:
    """Of runs one after another: sums, and the memory after the last."""
    rows = [split.row() for split in splits]
    sums = ("seconds", "wait_s", "teacher_s", "read_bytes", "all_images")
    return {**rows[-1], **{key: sum(row[key] for row in rows) for key in sums}}


def _taken(device: torch.device) -> Callable[[], int | None]:
    """How many bytes of the device are taken from now on, by whomever: torch's allocator knows nothing of DALI's."""
    if device.type != "cuda":
        return lambda: None
    free = torch.cuda.mem_get_info(device)[0]
    return lambda: free - torch.cuda.mem_get_info(device)[0]


def _teacher(config: RunConfig) -> Classifier:
    found = load_classifier(resolve(config.models.teacher, "teacher"))
    return for_label_space(found, load_label_space(config.labels))


def _train_plain(
    variant: Variant, recipe: DistillConfig, shards: ShardSet, teacher: Classifier, split: Split, device: torch.device
) -> list[float]:
    """A loop by hand or around timm's task: mean loss of the first and of the last steps."""
    torch.manual_seed(recipe.seed)
    student = create_student(recipe.student, shards.classes, recipe.image_size).train()
    shown = plain_distill.Teacher(teacher).eval()
    for net in (student, shown):
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    split.watch(shown)
    loss_of = (plain_distill.plain if variant.by == "hand" else plain_distill.by_timm)(student, shown, recipe)
    source = plain_distill.batches(shards, recipe, teacher, device)
    losses = plain_distill.train(student, loss_of, source, recipe, split).tolist()
    return [statistics.mean(losses[:_WINDOW]), statistics.mean(losses[-_WINDOW:])]


def _train_ours(
    recipe: DistillConfig, shards: ShardSet, teacher: Classifier | None, out: Path, split: Split, device: torch.device
) -> list[float]:
    """As ``prism-fast distill`` does it: losses of the first student's history."""
    mean, std = (teacher.config.mean, teacher.config.std) if teacher else (MEAN, STD)
    task = Task(recipe, shards, out, mean, std, teacher, world=World(device))

    def progress(step: int, steps: int, loss: float) -> None:
        if step == steps:
            split.end()

    loader = Fed(open_loader(shards, recipe, device, mean, std), split, live=teacher is not None)
    try:
        trainer = make_trainer(task, loader)
        if trainer.teacher is not None:
            split.watch(trainer.teacher)
        Session(task, trainer, None, progress, None).run()
    finally:
        loader.close()
    return [row["loss"] for row in trainer.learners[0].history]


def _main(name: str, document: str, run: str, out: str, steps: str, device: str) -> None:
    prepare()
    config = RunConfig.model_validate_json(Path(document).read_text())
    print(json.dumps(run_variant(config, name, Path(run), Path(out), int(steps), torch.device(device))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
