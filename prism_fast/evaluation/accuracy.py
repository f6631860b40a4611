"""Top-1, top-5 and confusions of a classifier on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prism_fast.errors import InputError
from prism_fast.evaluation._batched import run_batched

MAX_CONFUSION = 64  # classes; a matrix of 1,000 is a million numbers that nobody reads


@dataclass(frozen=True, eq=False)
class Accuracy:
    """What a classifier got right.

    ``top1`` and ``top5`` are fractions; ``top1_interval`` is the 95 % Wilson interval of ``top1``, which knows the
    size of the test set but not the spread over training seeds. ``per_class`` is None for a class without pictures.
    ``confusion[i, j]`` counts pictures of class i that were called j.

    Shapes:
        confusion (classes, classes) int64, logits (n, classes) float32.
    """

    top1: float
    top5: float
    top1_interval: tuple[float, float]
    per_class: tuple[float | None, ...]
    confusion: Tensor
    logits: Tensor
    n: int


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a binomial proportion, never outside [0, 1].

    Raises:
        InputError: ``n`` is not positive, or ``successes`` is outside 0..n.
    Reference:
        Wilson 1927; Brown, Cai, DasGupta 2001, eq. 4.
    """
    from scipy.stats import binomtest

    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"need n >= 1 and 0 <= successes <= n, got {successes} of {n}")
    low, high = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def score_logits(logits: Tensor, labels: Tensor) -> Accuracy:
    """Accuracy of logits that are already there.

    Shapes:
        logits (n, classes), labels (n,) integer in 0..classes-1.

    Raises:
        InputError: lengths differ, nothing to score, fewer than two classes, or a label outside the classes.
    """
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

    logits, labels = logits.float().cpu(), labels.long().cpu()
    _check_labels(logits, labels)
    classes, n = logits.shape[1], len(labels)
    top5 = multiclass_accuracy(logits, labels, classes, average="micro", top_k=min(5, classes))
    confusion = multiclass_confusion_matrix(logits, labels, classes)
    right, totals = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    per_class = tuple(r / t if t else None for r, t in zip(right, totals, strict=True))
    interval = wilson_interval(sum(right), n)
    return Accuracy(sum(right) / n, float(top5), interval, per_class, confusion, logits, n)


def evaluate_classifier(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    prepare: Callable[[Tensor], Tensor],
    batch_size: int = 128,
    device: str | torch.device = "cpu",
) -> Accuracy:
    """Accuracy of ``model`` on labelled pictures; ``prepare`` takes floats in 0..1 to the model's input.

    Shapes:
        images (n, 3, h, w) uint8, labels (n,).

    Raises:
        InputError: wrong shapes, dtypes or labels.
        RunError: the model answered with NaN or infinity.
    """
    if len(images) != len(labels):
        raise InputError(f"{len(images)} images but {len(labels)} labels")
    logits = run_batched(model, model, images, prepare=prepare, batch_size=batch_size, device=device)
    return score_logits(logits, labels)


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels):
        raise InputError(f"need logits (n, classes) and labels (n,), got {tuple(logits.shape)}, {tuple(labels.shape)}")
    if len(labels) == 0 or logits.shape[1] < 2:
        raise InputError(f"need at least one picture and two classes, got logits {tuple(logits.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise InputError(f"labels must be in 0..{logits.shape[1] - 1}, got {low}..{high}")


class Tally:
    """Accuracy of pictures that come batch by batch, among the classes of a test set; no picture is kept.

    Args:
        classes: how many the network tells apart.
        scored: labels of the test set's classes, each once; the logits of others are not looked at.
    """

    def __init__(self, classes: int, scored: Sequence[int]) -> None:
        if len(scored) < 2:
            raise InputError(f"the test set has {len(scored)} class; give at least two to tell apart")
        self._classes, self._scored = classes, torch.tensor(scored)
        self._totals, self._right = (torch.zeros(len(scored), dtype=torch.int64) for _ in range(2))
        self._right5 = 0
        self._confusion = torch.zeros((len(scored),) * 2, dtype=torch.int64) if classes <= MAX_CONFUSION else None

    def add(self, logits: Tensor, places: Tensor) -> None:
        """Count one batch: logits (n, classes), and each picture's place in ``scored`` (n,)."""
        if logits.shape[1] != self._classes:
            raise InputError(f"the network gives {logits.shape[1]} logits, expected {self._classes}")
        logits, number = logits[:, self._scored], len(self._scored)
        best = logits.topk(min(5, number), dim=1).indices
        called, right = best[:, 0], best == places[:, None]
        self._totals += torch.bincount(places, minlength=number)
        self._right += torch.bincount(places[right[:, 0]], minlength=number)
        self._right5 += int(right.sum())
        if self._confusion is not None:
            pairs = torch.bincount(places * number + called, minlength=number**2)
            self._confusion += pairs.view(number, number)

    @property
    def n(self) -> int:
        """Pictures counted so far."""
        return int(self._totals.sum())

    @property
    def top1(self) -> float:
        """The fraction of pictures whose class has the highest logit."""
        return self.successes / self.n

    @property
    def successes(self) -> int:
        """Pictures whose class has the highest logit."""
        return int(self._right.sum())

    @property
    def top5(self) -> float:
        """The fraction of pictures whose class is among the five highest logits."""
        return self._right5 / self.n

    def per_class(self) -> tuple[float | None, ...]:
        """Top-1 by label, None for a class without pictures."""
        found: list[float | None] = [None] * self._classes
        for label, right, total in zip(*(t.tolist() for t in (self._scored, self._right, self._totals)), strict=True):
            found[label] = right / total if total else None
        return tuple(found)

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Counts by label, empty for more than ``MAX_CONFUSION`` classes."""
        if self._confusion is None:
            return ()
        whole = torch.zeros(self._classes, self._classes, dtype=torch.int64)
        whole[self._scored[:, None], self._scored] = self._confusion
        return tuple(map(tuple, whole.tolist()))


class AnyOfTally:
    """Accuracy of pictures that come batch by batch, each with one or more classes of which any is right.

    Args:
        right: the classes of every picture, by its place.
    """

    def __init__(self, right: Sequence[frozenset[int]]) -> None:
        self._right = right
        self.n = self.successes = self._right5 = 0

    def add(self, logits: Tensor, places: Tensor) -> None:
        """Count one batch: logits (n, classes), and each picture's place in ``right`` (n,)."""
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices.tolist()
        for called, place in zip(best, places.tolist(), strict=True):
            self.n += 1
            self.successes += called[0] in self._right[place]
            self._right5 += not self._right[place].isdisjoint(called)

    @property
    def top1(self) -> float:
        """The fraction of pictures of which the highest logit is one of the right classes."""
        return self.successes / self.n

    @property
    def top5(self) -> float:
        """The fraction of pictures with a right class among the five highest logits."""
        return self._right5 / self.n
