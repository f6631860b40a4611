"""Top-1, top-5 and confusions of a classifier on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prism_fast.errors import InputError
from prism_fast.evaluation._batched import run_batched


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
