"""What the images of a run say that it lacks: one number a sample, by which the next images are given out.

``agreement``: 1 where the teacher sees another class, else 0. ``coverage``: 1 where images are few, else 0: where the
k-th nearest image of the class is farther than for three quarters of all samples, in cosine distance between features
of a network that did not guide. ``student``: the divergence KL(teacher | student) of their answers, in nats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from prism_fast.config import RunConfig
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import InputError
from prism_fast.evaluation.comparison import features_of
from prism_fast.evaluation.judge import load_judge
from prism_fast.models.classifier import Classifier, load_classifier

Towards = Literal["agreement", "coverage", "student"]
Array = np.ndarray[Any, np.dtype[Any]]
#: (samples looked at, samples to look at, mean lack so far)
Progress = Callable[[int, int, float], None]
#: Samples that are decoded and shown to a network: of more, the first of each class.
MOST_DECODED = 131_072
#: Part of the samples that do not lie where images are few; ours.
SPARSE = 0.75


@dataclass(frozen=True)
class Lacks:
    """What each looked-at sample says is lacking where it is: index, label and value, (n,) each."""

    index: Array
    label: Array
    value: Array


def measure(
    run: Path, config: RunConfig, towards: Towards, student: Path | None, progress: Progress | None = None
) -> Lacks:
    """What the finished shards of a run lack.

    Raises:
        InputError: ``student`` is asked for and none given, or one of other classes. DataError: no shard is finished,
            or one cannot be read.
    """
    shards = ShardSet.discover(run)
    if towards == "agreement":
        return _of(_answers(shards), shards.rows, progress)
    samples = _first_of_each(shards, max(2, MOST_DECODED // shards.classes))
    total = min(shards.rows, MOST_DECODED)
    if towards == "student":
        return _of(_divergences(samples, _student(student, shards.classes), config), total, progress)
    found = _of(_features(samples, config), total, progress)
    distance = _distances(found.value, found.label, config.evaluate.neighbours)
    return Lacks(found.index, found.label, (distance > np.quantile(distance, SPARSE)).astype(np.float32))


def _of(found: Iterator[tuple[int, int, Any]], total: int, progress: Progress | None) -> Lacks:
    rows = []
    for row in found:
        rows.append(row)
        if progress and (len(rows) % 1024 == 0 or len(rows) == total):
            progress(len(rows), total, 0.0)
    index, label, value = zip(*rows, strict=True)
    return Lacks(np.array(index), np.array(label), np.array(value))


def _answers(shards: ShardSet) -> Iterator[tuple[int, int, float]]:
    for shard in shards.shards:
        with shard.open() as reader:
            for entry in shard.entries():
                label = reader.label(entry)
                yield entry.index, label, float(reader.meta(entry)["teacher_top1"] != label)


def _first_of_each(shards: ShardSet, most: int) -> Iterator[Sample]:
    seen: Counter[int] = Counter()
    for shard in shards.shards:
        with shard.open() as reader:
            for entry in shard.entries():
                label = reader.label(entry)
                if seen[label] < most:
                    seen[label] += 1
                    yield reader.sample(entry)


def _student(path: Path | None, classes: int) -> Classifier:
    if path is None:
        raise InputError("towards student needs one; give --student DIR, the folder that 'prism-fast distill' wrote")
    found = load_classifier(str(path))
    if found.config.num_classes != classes:
        raise InputError(f"{path} tells {found.config.num_classes} classes apart, the run's teacher {classes}")
    return found


def _divergences(samples: Iterator[Sample], student: Classifier, config: RunConfig) -> Iterator[tuple[int, int, float]]:
    for batch in _batches(samples, config.evaluate.batch_size):
        theirs = student.logits(_images(batch)).float().log_softmax(1)
        teachers = torch.stack([sample.logits for sample in batch]).float().log_softmax(1)
        values = F.kl_div(theirs, teachers, reduction="none", log_target=True).sum(1)
        yield from ((s.index, s.label, v) for s, v in zip(batch, values.tolist(), strict=True))


def _features(samples: Iterator[Sample], config: RunConfig) -> Iterator[tuple[int, int, Array]]:
    judge = load_judge(config.models).network
    for batch in _batches(samples, config.evaluate.batch_size):
        unit = F.normalize(features_of(judge, _images(batch), len(batch)), dim=1).half().numpy()
        yield from ((s.index, s.label, v) for s, v in zip(batch, unit, strict=True))


def _batches(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    while batch := list(islice(samples, size)):
        yield batch


def _images(batch: Sequence[Sample]) -> torch.Tensor:
    return torch.stack([sample.image for sample in batch])


def _distances(features: Array, labels: Array, k: int) -> Array:
    """Cosine distance of each unit vector (n, d) to its k-th nearest of the same class; 0 where it is alone."""
    found = np.zeros(len(labels), np.float32)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        if len(places) > 1:
            own = features[places].astype(np.float32)
            distance = np.sort(1 - own @ own.T, axis=1)  # the first is the distance to itself
            found[places] = distance[:, min(k, len(places) - 1)].clip(min=0)
    return found
