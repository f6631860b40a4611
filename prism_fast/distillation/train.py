"""Distillation: a fixed number of steps, interruptible at any of them.

``train_students`` called again on the same directory continues after the last checkpoints. On the CPU the weights are
then bit-equal to those of an undisturbed run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prism_fast.config import DistillConfig
from prism_fast.data.augment import Augment
from prism_fast.data.held_out import split
from prism_fast.data.loader import Loader, Part, open_loader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.checkpoint import checked, load_checkpoint
from prism_fast.distillation.learner import Learner
from prism_fast.distillation.losses import make_loss
from prism_fast.distillation.session import Session
from prism_fast.distillation.speed import for_training
from prism_fast.distillation.student import make_student
from prism_fast.distillation.task import Progress, Result, Task, Watch
from prism_fast.distillation.teacher import LiveTeacher
from prism_fast.distillation.trainer import Trainer
from prism_fast.distillation.validation import Validation
from prism_fast.errors import InputError
from prism_fast.evaluation.folder import open_folder

_log = logging.getLogger(__name__)


def train_students(task: Task, progress: Progress | None = None, watch: Watch | None = None) -> tuple[Result, ...]:
    """Train the recipe's students on the same batches, or continue where an earlier call stopped.

    Writes for each ``checkpoint.pt``, ``tensorboard/``, with validation ``best/``, and at the end
    ``student/config.json``, ``student/model.safetensors`` and ``student/history.json``. The global random state of
    torch is left as found.

    Args:
        task: what is trained on what.
        progress: told every few steps: steps done, steps in all, loss of the first student.
        watch: told the same as a row of the history, for each student.

    Raises:
        InputError: unknown student, or one that does not take such pictures or batches; a loader that cannot run, no
            teacher where one is needed, a checkpoint of another recipe.
        DataError: shards or a checkpoint that cannot be read, or a teacher of another class count.
        RunError: the loss is not finite, or the disk refused.
    """
    config, device = task.config, task.world.device
    _require_teacher(task)
    trained, held_out = _divided(task)
    part = Part(task.world.rank, task.world.ranks)
    loader = open_loader(trained, config, device, task.mean, task.std, part, task.image_size)
    try:
        with for_training(device), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            trainer = make_trainer(task, loader)
            _resume(task, trainer)
            validation = Validation(held_out, task) if held_out and task.world.leads else None
            session = Session(task, trainer, validation, progress, watch)
            session.run()
    finally:
        loader.close()
    return tuple(session.result(learner) for learner in trainer.learners)


def make_trainer(task: Task, loader: Loader) -> Trainer:
    """The recipe's students with fresh weights, fed by ``loader``; torch's global random state is changed.

    Raises:
        InputError: an unknown student, or one that does not take such pictures or batches.
    """
    learners = [_learner(task, name, recipe) for name, recipe in _recipes(task.config)]
    config = task.config
    augment = Augment(config.augment, config.seed, task.mean, task.std, task.world.device, config.views_per_decode)
    return Trainer(loader, learners, _live(task, learners), augment, task.world)


def _divided(task: Task) -> tuple[ShardSet, ShardSet | None]:
    """What is trained on, and what is held out, if anything is to be."""
    look = task.config.validation
    if look.pictures is not None:
        open_folder(Path(look.pictures))  # a wrong one is said now, not at the first look
    if not look.share:
        return task.shards, None
    trained, held_out = split(task.shards, look.share, look.most, task.config.seed)
    if not held_out.rows:
        raise InputError("of one sample none can be held out; set distill.validation.share to 0")
    return trained, held_out


def _require_teacher(task: Task) -> None:
    if task.config.teacher == "live" and task.teacher is None:
        raise InputError("distill.teacher is 'live', but there is no teacher network")


def _recipes(config: DistillConfig) -> list[tuple[str, DistillConfig]]:
    names = [one.name for one in config.students] or ["student"]
    return list(zip(names, config.each_student(), strict=True))


def _learner(task: Task, name: str, recipe: DistillConfig) -> Learner:
    torch.manual_seed(recipe.seed)
    made = make_student(recipe, task.shards.classes, task.teacher, lambda: _first_images(task))
    update = {"mean": task.mean, "std": task.std, "label_names": task.label_names}
    teacher, size = (task.teacher.net, task.teacher.config.image_size) if task.teacher else (None, None)
    loss = make_loss(recipe.terms(), made.net, teacher, task.shards.classes, recipe.image_size, size)
    return Learner(name, recipe, made.net, made.config.model_copy(update=update), loss, task.world)


def _first_images(task: Task) -> Iterator[Tensor]:
    """Batches from the beginning of the stream, whole ones on every rank, by a loader of their own."""
    loader = open_loader(task.shards, task.config, task.world.device, task.mean, task.std, Part(), task.image_size)
    try:
        for batch in loader:
            yield batch.images
    finally:
        loader.close()


def _live(task: Task, learners: Sequence[Learner]) -> LiveTeacher | None:
    if task.config.teacher != "live" or task.teacher is None:
        return None
    maps = any(learner.loss.wants_maps for learner in learners)
    return LiveTeacher(task.teacher, maps).to(task.world.device).eval()


def _resume(task: Task, trainer: Trainer) -> None:
    """Every student from its checkpoint, and the loader from that of the one that is least far."""
    positions = []
    for learner in trainer.learners:
        path = task.folder(learner) / "checkpoint.pt"
        if not path.exists():
            continue
        saved = load_checkpoint(path)
        _require_identity(path, saved.identity, task.identity(learner))
        with checked(path):
            learner.restore(saved)
        positions.append((saved.step, path, saved.loader))
        _log.info("resumed %s at step %d", path.parent, learner.step)
    if len(positions) == len(trainer.learners):
        _, path, state = min(positions, key=lambda one: one[0])
        with checked(path):
            trainer.loader.load_state_dict(state)


def _require_identity(path: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    differing = [key for key in identity if saved.get(key) != identity[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"{path} was written with {key} = {saved.get(key)!r}, this run has {identity[key]!r}; "
            "use another directory or delete it"
        )
