"""Recall class by class: how different a class's images are, and how many of its real pictures they are near."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import InputError
from prism_fast.evaluation.prdc import coverage
from prism_fast.evaluation.vendi import mean_pairwise_distance, vendi_score


class ClassDiversity(BaseModel):
    """One class of a set of synthetic images, as stored in ``evaluation.json``; None where nothing was measured.

    ``vendi`` and ``distance`` are of the first images of the class, as many as in all others. ``coverage`` is the share
    of the class's ``real`` pictures near which one of its ``images`` lies: in the ball up to the k-th neighbour among
    the class's real pictures, ``k`` being smaller than asked for where there are no more than k of them.
    """

    model_config = ConfigDict(frozen=True)

    label: int
    images: int
    agreement: float | None = None
    vendi: float | None = None
    distance: float | None = None
    coverage: float | None = None
    real: int = 0
    k: int | None = None


@dataclass(frozen=True)
class Labelled:
    """Features and the class of each.

    Shapes: features (n, d), labels (n,) int64.
    """

    features: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise InputError(f"{len(self.features)} features but {len(self.labels)} labels; give one label a picture")

    def of(self, label: int) -> Tensor:
        """The features of one class, in order."""
        return self.features[self.labels == label]

    def counts(self) -> Counter[int]:
        """How many there are of each class."""
        return Counter(self.labels.tolist())


def count_images(shards: ShardSet) -> Counter[int]:
    """How many images a run has of each class; only labels are read.

    Raises:
        DataError: a shard cannot be read.
    """
    found: Counter[int] = Counter()
    for shard in shards.shards:
        with shard.open() as reader:
            found.update(reader.label(entry) for entry in shard.entries())
    return found


def common_size(sets: Iterable[Counter[int]]) -> int | None:
    """On how many images of each class the Vendi score is computed, so that all classes of all sets compare.

    It is bounded by the number of images and grows with it: of different numbers, the larger class looks richer. So it
    is the smallest number that any class has in any of the sets. A class of a single image has no diversity to measure:
    it is left out here, and gets no score. None if there is no other.
    """
    return min((n for counts in sets for n in counts.values() if n > 1), default=None)


def diversity_by_class(
    made: Labelled, right: Tensor | None = None, real: Labelled | None = None, *, size: int | None = None, k: int = 5
) -> tuple[ClassDiversity, ...]:
    """Measure every class that has an image or a real picture, in order of the labels.

    Args:
        made: the synthetic images.
        right: whether the teacher's answer is the class, (n,) bool.
        real: real pictures of the same classes.
        size: images of a class whose Vendi score is taken: the first ones, in runs of one plan mostly of the same
            prompts and noise. None means :func:`common_size` of this set; classes that have fewer get no score.
        k: neighbours of coverage; at most one fewer than a class has real pictures. Of fewer than 2 there is none.

    Raises:
        InputError: no k of at least 1, features that do not fit each other, NaN or infinity.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    size = common_size([made.counts()]) if size is None else size
    labels = {*made.counts(), *(real.counts() if real else ())}
    return tuple(_one(label, made, right, real, size, k) for label in sorted(labels))


def _one(
    label: int, made: Labelled, right: Tensor | None, real: Labelled | None, size: int | None, k: int
) -> ClassDiversity:
    features = made.of(label)
    first = features[:size] if size is not None and 1 < size <= len(features) else None
    pictures = real.of(label) if real else features[:0]
    neighbours = min(k, len(pictures) - 1)
    covered = None
    if neighbours > 0:
        covered = coverage(pictures, features, k=neighbours) if len(features) else 0.0
    return ClassDiversity(
        label=label,
        images=len(features),
        agreement=float(right[made.labels == label].float().mean()) if right is not None and len(features) else None,
        vendi=None if first is None else vendi_score(first),
        distance=None if first is None else mean_pairwise_distance(first),
        coverage=covered,
        real=len(pictures),
        k=neighbours if neighbours > 0 else None,
    )


def mean_vendi(classes: Sequence[ClassDiversity]) -> float | None:
    """The mean over the classes that have a score; None if none has."""
    return _mean([c.vendi for c in classes if c.vendi is not None])


def mean_coverage(classes: Sequence[ClassDiversity]) -> float | None:
    """The mean over the classes that have real pictures; None if none has."""
    return _mean([c.coverage for c in classes if c.coverage is not None])


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
