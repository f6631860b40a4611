"""Train the student that a run's configuration asks for: its data, its teacher, its normalisation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prism_fast.config import RunConfig
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation.student import MEAN, STD
from prism_fast.distillation.teacher import LiveTeacher
from prism_fast.distillation.trainer import Progress, Result, train_student
from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import load_classifier
from prism_fast.models.device import require_device
from prism_fast.models.label_space import for_label_space


def distill_run(
    config: RunConfig,
    run: Path,
    out: Path,
    *,
    device: str = "cpu",
    check: bool | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train a student on the shards of ``run``, or continue where an earlier call stopped.

    Its targets are the logits that the shards store, or with ``distill.teacher: live`` those of the configured teacher,
    whose normalisation the student then shares.

    Args:
        config: the recipe, and the teacher.
        run: the run's directory.
        out: where the student and its checkpoint go.
        device: where student and teacher compute.
        check: whether every byte of the shards is hashed first; None means that of a small run.
        progress: told every few steps: steps done, steps in all, loss.

    Raises:
        InputError: an unknown student or device, a loader that cannot run, a checkpoint of another recipe.
        DataError: shards or a teacher that cannot be read, or a teacher of another class count.
        RunError: the loss is not finite, or the disk refused.
    """
    require_device(device)
    shards = ShardSet.discover(run, config.distill.selection, check)
    train = partial(
        train_student,
        config.distill,
        shards,
        out,
        device=device,
        progress=progress,
        label_names=_label_names(config, shards.classes),
    )
    if config.distill.teacher == "stored":
        return train(mean=MEAN, std=STD)
    found = load_classifier(resolve(config.models.teacher, "teacher"))
    classifier = for_label_space(found, load_label_space(config.labels))
    live = LiveTeacher(classifier).to(device)
    return train(teacher=live, mean=classifier.config.mean, std=classifier.config.std)


def _label_names(config: RunConfig, classes: int) -> tuple[str, ...] | None:
    """What the classes are called, so that pictures in folders of these names can be scored; None if nobody knows."""
    try:
        names = tuple(cls.name for cls in load_label_space(config.labels).classes)
    except InputError:  # the label file may have gone since
        return None
    return names if len(names) == classes else None
