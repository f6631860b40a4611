"""Decide once what the new rows of a run are, where it is not simply whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prism_fast.config import RunConfig
from prism_fast.dataset.draws import Decision, Reason, equal_part, read_reason, store_part, stored_part
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.models.content_hash import content_hash
from prism_fast.operations.needs import Progress, Towards, measure
from prism_fast.operations.rounds import allot
from prism_fast.prompts.source import prompts_of
from prism_fast.synthesis.coverage import order_of


@dataclass(frozen=True)
class Aim:
    """What new images are given out by; ``student`` is whose disagreement with the teacher is looked at."""

    towards: Towards
    student: Path | None = None


def _reason(directory: RunDirectory, aim: Aim | None, images: int) -> Reason:
    towards = aim.towards if aim else "equal numbers"
    student = content_hash(aim.student) if aim and aim.student else ""
    return Reason(run_hash=directory.layout().run_hash, towards=towards, images=images, student=student)


def _is_decided(directory: RunDirectory, aim: Aim, images: int) -> bool:
    """Whether the run was made as long as it is by the same call."""
    decided = directory.decisions()
    return bool(decided) and read_reason(directory.path, decided[-1]).same(_reason(directory, aim, images))


def decide(
    directory: RunDirectory, config: RunConfig, images: int, aim: Aim | None, progress: Progress | None
) -> tuple[Decision, ...]:
    """The run's decisions and what its new rows are; the same once more if it has so many images already.

    Raises:
        InputError: it has so many by another call, or a wrong student. DataError: there is nothing to look at.
        OSError: the decision cannot be written.
    """
    decided, start = directory.decisions(), directory.layout().images
    if images == start:
        if aim is not None and not _is_decided(directory, aim, images):
            raise InputError(
                f"{directory.path} has {images} images already, none is left to give out; give more --images"
            )
        return decided
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
