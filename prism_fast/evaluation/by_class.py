"""The report's table of diversity by class: of what was measured, or of a run's first images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import InputError
from prism_fast.evaluation.diversity import ClassDiversity, Labelled, common_size, diversity_by_class
from prism_fast.evaluation.first import MAX_CLASSES, first_of_each_class
from prism_fast.evaluation.report.model import ClassSpread, Diversity

if TYPE_CHECKING:
    from prism_fast.evaluation.comparison import Evaluation
    from prism_fast.evaluation.judge import Judge

_AT_ONCE = 32  # images decoded at a time


def of_evaluation(evaluation: Evaluation, names: Sequence[str]) -> Diversity | None:
    """What ``evaluation.json`` says class by class; None if it is older than that."""
    sets = {made.name: made.per_class for made in evaluation.sets if made.per_class}
    sizes = {made.vendi_images for made in evaluation.sets if made.per_class}
    return _table(sets, names, next(iter(sizes)) if len(sizes) == 1 else None, evaluation.features) if sets else None


def of_runs(runs: Mapping[str, ShardSet], judge: Judge, names: Sequence[str], count: int) -> Diversity:
    """Measure the first ``count`` images of each of the first 64 classes; real pictures are not needed.

    Features of so many images are all that is held in memory. All sets are measured on equally many of each class.

    Raises:
        InputError: count is below 2. DataError: a shard cannot be read. RunError: NaN or infinite features.
    """
    if count < 2:
        raise InputError(f"diversity needs at least 2 images of each class, got {count}; give 50, for example")
    seen = {name: _seen(first_of_each_class(shards, count), judge) for name, shards in runs.items()}
    size = common_size(made.counts() for made, _ in seen.values())
    sets = {name: diversity_by_class(made, right, size=size) for name, (made, right) in seen.items()}
    return _table(sets, names, size, judge.name)


def cut_note(diversity: Diversity, count: int, classes: int) -> str:
    """What a page says of a table that :func:`of_runs` made."""
    of = f"the first {MAX_CLASSES} of {classes} classes" if classes > MAX_CLASSES else "each class"
    return f"Diversity by class is that of the first {diversity.images or count} images of {of}."


def _seen(samples: Iterator[Sample], judge: Judge) -> tuple[Labelled, torch.Tensor]:
    """Features and labels of images that are decoded a few at a time, and whether the teacher agrees."""
    from prism_fast.evaluation.comparison import features_of

    features, labels, right = [], list[int](), list[bool]()
    for part in _parts(samples):
        features.append(features_of(judge.network, torch.stack([s.image for s in part]), _AT_ONCE))
        labels += (s.label for s in part)
        right += (int(s.logits.argmax()) == s.label for s in part)
    return Labelled(torch.cat(features), torch.tensor(labels)), torch.tensor(right)


def _parts(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    part: list[Sample] = []
    for sample in samples:
        part.append(sample)
        if len(part) == _AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _table(
    sets: Mapping[str, Sequence[ClassDiversity]], names: Sequence[str], images: int | None, features: str
) -> Diversity:
    found = {name: {c.label: c for c in classes} for name, classes in sets.items()}
    labels = sorted({label for rows in found.values() for label in rows})
    rows = tuple(_row(names[label], [classes.get(label) for classes in found.values()]) for label in labels)
    return Diversity(tuple(found), rows, images, features)


def _row(name: str, of_sets: Sequence[ClassDiversity | None]) -> ClassSpread:
    return ClassSpread(
        class_name=name,
        images=tuple(c.images if c else 0 for c in of_sets),
        vendi=tuple(c.vendi if c else None for c in of_sets),
        agreement=tuple(c.agreement if c else None for c in of_sets),
        coverage=tuple(c.coverage if c else None for c in of_sets),
        real=max((c.real for c in of_sets if c), default=0),
    )
