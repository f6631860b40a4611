"""Train the students that a run's configuration asks for: its data, its teacher, its normalisation."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from prism_fast.config import DistillConfig, RunConfig
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.model_card import origins_of
from prism_fast.distillation.parallel import World
from prism_fast.distillation.student import MEAN, STD
from prism_fast.distillation.task import Progress, Result, Task, Watch
from prism_fast.distillation.train import train_students
from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import Classifier, ClassifierConfig, load_classifier, outline_classifier
from prism_fast.models.device import require_device
from prism_fast.models.label_space import for_label_space

_log = logging.getLogger(__name__)


def distill_run(
    config: RunConfig,
    run: Path,
    out: Path,
    *,
    device: str = "cpu",
    world: World | None = None,
    check: bool | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> tuple[Result, ...]:
    """Train students on the shards of ``run``, or continue where an earlier call stopped.

    Their targets are the logits that the shards store, those of stored views, or with ``distill.teacher: live`` those
    of the configured teacher. Students that have anything of the teacher share its normalisation.

    Args:
        config: the recipe, and the teacher.
        run: the run's directory.
        out: where the students and their checkpoints go.
        device: where students and teacher compute.
        world: which of several processes this is; None: the only one, on ``device``.
        check: whether every byte of the shards is hashed first; None means that of a small run.
        progress: told every few steps: steps done, steps in all, loss.
        watch: told every few steps: a student's name and its row of the history.

    Raises:
        InputError: an unknown student or device, a loader that cannot run, a checkpoint of another recipe.
        DataError: shards or a teacher that cannot be read, or a teacher of another class count.
        RunError: the loss is not finite, or the disk refused.
    """
    require_device(device)
    world = world or World(torch.device(device))
    shards = ShardSet.discover(run, config.distill.selection, check)
    teacher = _teacher(config) if _needs_teacher(config.distill) else None
    pixels = teacher.config if teacher else _begun(config.distill)
    task = Task(
        config=config.distill,
        shards=shards,
        out=out,
        mean=pixels.mean if pixels else MEAN,
        std=pixels.std if pixels else STD,
        teacher=teacher,
        label_names=_label_names(config, shards.classes),
        origins=origins_of(config),
        world=world,
    )
    if world.leads and world.ranks > 1:
        _log.info(
            "%d ranks: batches of %d, %d a rank; neither learning rate nor steps depend on how many there are",
            world.ranks,
            config.distill.batch_size,
            config.distill.batch_size // world.ranks,
        )
    return train_students(task, progress, watch)


def _needs_teacher(config: DistillConfig) -> bool:
    """Whether any student learns from a teacher pass, or has something of the teacher's."""
    students = config.each_student()
    projected = any(term.name == "simkd" for one in students for term in one.terms())
    return config.teacher == "live" or projected or any(one.student_from == "teacher" for one in students)


def _teacher(config: RunConfig) -> Classifier:
    found = load_classifier(resolve(config.models.teacher, "teacher"))
    return for_label_space(found, load_label_space(config.labels))


def _begun(config: DistillConfig) -> ClassifierConfig | None:
    """What the pictures of the first student that begins with weights looked like; None if none does."""
    for one in config.each_student():
        if one.student_init is not None:
            return outline_classifier(one.student_init).config
    return None


def _label_names(config: RunConfig, classes: int) -> tuple[str, ...] | None:
    """What the classes are called, so that pictures in folders of these names can be scored; None if nobody knows."""
    try:
        names = tuple(cls.name for cls in load_label_space(config.labels).classes)
    except InputError:  # the label file may have gone since
        return None
    return names if len(names) == classes else None
