"""Let a run have more images than it was begun with; nothing is sampled here.

Row i of the plan does not depend on the number of images, and neither does a full shard: they stay as they are. A last
shard that was not full is another one in the longer run, with more samples and another batch shape. It is retired:
its record goes, and ``synthesize`` makes it again with the rest. So an extended run is byte for byte the run that would
have been made at once; unless the new images are given out by what those before say: that decision is a file in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prism_fast.config import RunConfig
from prism_fast.dataset.draws import Decision, Reason, equal_part, read_reason, store_part, stored_part
from prism_fast.dataset.layout import Layout
from prism_fast.dataset.run_directory import RunDirectory, run_document
from prism_fast.errors import InputError, RunError
from prism_fast.labels.load import load_label_space
from prism_fast.models.content_hash import content_hash
from prism_fast.operations.needs import Progress, Towards, measure
from prism_fast.operations.rounds import allot
from prism_fast.prompts.source import prompts_of
from prism_fast.storage.files import remove, replace
from prism_fast.synthesis.coverage import order_of
from prism_fast.workers.leases import require_idle

_OF_THE_OLD_LENGTH = ("plan.parquet", "manifest.parquet", "README.md")


@dataclass(frozen=True)
class Aim:
    """What new images are given out by; ``student`` is whose disagreement with the teacher is looked at."""

    towards: Towards
    student: Path | None = None


@dataclass(frozen=True)
class Extended:
    """The longer run; ``retired`` is the last shard that was not full, None when there was none."""

    images_before: int
    images: int
    shards: int
    shards_to_make: int
    retired: int | None


def _longer(config: RunConfig, layout: Layout, path: Path, images: int) -> RunConfig:
    if images < layout.images:
        raise InputError(f"{path} is a run of {layout.images} images, which only grows; --images {images} is fewer")
    if config.run_hash() != layout.run_hash:  # the label file's content is a part of it
        raise InputError(f"{path} was begun with another label file than {config.labels} is now; restore that file")
    return config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"images": images})})


def _retire_partial(directory: RunDirectory, layout: Layout) -> int | None:
    last = layout.shards - 1
    if layout.extent(last)[1] == layout.shard_size:
        return None
    record = directory.shards / f"{last:06d}.json"
    held = record.exists()
    remove(record)
    return last if held else None


def _reason(directory: RunDirectory, aim: Aim | None, images: int) -> Reason:
    towards = aim.towards if aim else "equal numbers"
    student = content_hash(aim.student) if aim and aim.student else ""
    return Reason(run_hash=directory.layout().run_hash, towards=towards, images=images, student=student)


def _is_decided(directory: RunDirectory, aim: Aim, images: int) -> bool:
    """Whether the run was made as long as it is by the same call."""
    decided = directory.decisions()
    return bool(decided) and read_reason(directory.path, decided[-1]).same(_reason(directory, aim, images))


def _decide(
    directory: RunDirectory, config: RunConfig, images: int, aim: Aim | None, progress: Progress | None
) -> tuple[Decision, ...]:
    """What the new rows are, where it is not simply whose turn it is."""
    decided, start = directory.decisions(), directory.layout().images
    if aim is None and not decided:
        return ()
    reason = _reason(directory, aim, images)
    if (known := stored_part(directory.path, start, reason)) is not None:
        return (*decided, known)
    space = load_label_space(config.labels)
    draws, order = directory.draws(len(space.classes)), order_of(config)
    if aim is None:
        return (*decided, store_part(directory.path, equal_part(draws, start, images, order), reason))
    lacks = measure(directory.path, config, aim.towards, aim.student, progress)
    prompts = prompts_of(config.prompts, space, config.seed)
    made = allot(lacks, prompts, draws, order, (start, images), config.seed, aim.towards == "agreement")
    return (*decided, store_part(directory.path, made.part, reason.model_copy(update={"needs": made.needs})))


def extend(path: Path, images: int, aim: Aim | None = None, progress: Progress | None = None) -> Extended:
    """Make a run of N images one of ``images``; refused while a worker has a shard of it in hand.

    Killed at any moment it leaves a run of the old or of the new length, and the same call goes on: what the new rows
    are is decided and stored, the partial shard and the plan of the old length go, then ``run.json`` changes, then the
    longer plan is written.

    Args:
        path: the run.
        images: how many it shall have.
        aim: what the new images are given out by; None: to every class equally many.
        progress: told how many samples were looked at.

    Raises:
        InputError: a worker is busy, fewer images than the run has, its label file changed, or a wrong student.
        DataError: not a run directory, or nothing in it to look at. RunError: the disk refused.
    """
    directory = RunDirectory(path)
    require_idle(directory.shards)
    before, config = directory.layout(), directory.config()
    longer, retired = _longer(config, before, path, images), None
    if aim is not None and images == before.images and not _is_decided(directory, aim, images):
        raise InputError(f"{path} has {images} images already, none is left to give out; give more --images")
    try:
        if images > before.images:
            decided = _decide(directory, config, images, aim, progress)
            retired = _retire_partial(directory, before)
            for name in _OF_THE_OLD_LENGTH:
                remove(path / name)
            replace(path / "run.json", run_document(longer, before.run_hash, decided))
    except OSError as error:
        raise RunError(f"cannot extend {path}: {error.strerror or error}; fix it and run the same command") from error
    directory.claim(longer)
    layout = directory.layout()
    done = sum(1 for shard in directory.records() if shard < layout.shards)
    return Extended(before.images, images, layout.shards, layout.shards - done, retired)
