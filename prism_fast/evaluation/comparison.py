"""Measure teacher, students and synthetic images against held-out real pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from prism_fast.dataset.sample import Sample
from prism_fast.errors import InputError
from prism_fast.evaluation.accuracy import Accuracy, evaluate_classifier
from prism_fast.evaluation.cost import Cost
from prism_fast.evaluation.diversity import (
    ClassDiversity,
    Labelled,
    common_size,
    diversity_by_class,
    mean_coverage,
    mean_vendi,
)
from prism_fast.evaluation.energies import free_energies
from prism_fast.evaluation.features import pooled_features
from prism_fast.evaluation.pictures import Pictures
from prism_fast.evaluation.prdc import Prdc, prdc
from prism_fast.evaluation.real_sets import real_sets
from prism_fast.labels.load import load_label_space
from prism_fast.models.classifier import Classifier


class Scored(BaseModel):
    """Accuracy of one network on one test set, as stored in ``evaluation.json``.

    ``per_class`` and ``confusion`` are by label; of a folder with more than 64 classes there is no confusion matrix.
    ``classes_scored`` is less than ``classes`` when the test set has only some of them: the others' logits were left
    out. ``left_out`` counts pictures that were not looked at: of another class than the label space's, or of none. All
    three are None in older files. With reassessed labels a picture has several, and ``per_class`` is empty.
    """

    model_config = ConfigDict(frozen=True)

    network: str
    test_set: str
    n: int
    top1: float
    top5: float
    low: float
    high: float
    per_class: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    classes: int | None = None
    classes_scored: int | None = None
    left_out: int | None = None
    matched: str = ""


class ImageSet(BaseModel):
    """What was measured of one set of synthetic images.

    ``vendi`` is the mean over the classes, of the first ``vendi_images`` images of each; the same number in every set
    of an evaluation. ``coverage_by_class`` is the mean over the classes that have real pictures. The last four are
    empty in older files.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    images: int
    images_per_s: float
    energies: tuple[float, ...]
    agreement: float
    precision: float
    recall: float
    density: float
    coverage: float
    vendi: float | None = None
    vendi_images: int | None = None
    coverage_by_class: float | None = None
    per_class: tuple[ClassDiversity, ...] = ()


class Evaluation(BaseModel):
    """Everything measured, ``evaluation.json``. ``costs`` are by network, as in ``scores``; older files have none."""

    model_config = ConfigDict(frozen=True)

    scores: tuple[Scored, ...]
    sets: tuple[ImageSet, ...]
    real_energies: tuple[float, ...]
    features: str
    costs: dict[str, Cost] = Field(default_factory=dict)

    def top1(self, network: str, test_set: str) -> float | None:
        """Top-1 of a network on a test set, None when it was not measured."""
        return next((s.top1 for s in self.scores if (s.network, s.test_set) == (network, test_set)), None)


def score(
    name: str, classifier: Classifier, test_set: str, pictures: Pictures, batch_size: int, device: str = "cpu"
) -> Scored:
    """Accuracy of one classifier on one test set that is in memory."""
    found: Accuracy = evaluate_classifier(
        classifier.net,
        pictures.images,
        pictures.labels,
        prepare=classifier.prepare,
        batch_size=batch_size,
        device=device,
    )
    return Scored(
        network=name,
        test_set=test_set,
        n=found.n,
        top1=found.top1,
        top5=found.top5,
        low=found.top1_interval[0],
        high=found.top1_interval[1],
        per_class=found.per_class,
        confusion=tuple(map(tuple, found.confusion.tolist())),
        classes=len(found.per_class),
        classes_scored=len(found.per_class),
        left_out=0,
    )


def score_bundled(
    name: str, classifier: Classifier, batch_size: int, labels: str | None = None, device: str = "cpu"
) -> list[Scored]:
    """Accuracy on each bundled test set.

    Raises:
        InputError: a classifier of other classes, or a label space, which these sets bring along.
    """
    tests = real_sets().tests
    wanted, classes = len(load_label_space("emoji").classes), classifier.config.num_classes
    if labels is not None:
        raise InputError(
            f"--labels {labels} is for a folder, the bundled test sets have their own; give --pictures DIR"
        )
    if classes != wanted:
        raise InputError(
            f"{name} tells {classes} classes apart, the bundled test sets have {wanted}; give --pictures DIR"
        )
    return [score(name, classifier, test_set, found, batch_size, device) for test_set, found in tests.items()]


def features_of(network: Classifier, images: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Pooled features of uint8 images."""
    return pooled_features(network.net, images, prepare=network.prepare, batch_size=batch_size)


def measure_set(
    name: str,
    samples: list[Sample],
    real_features: torch.Tensor,
    network: Classifier,
    k: int,
    batch_size: int,
    images_per_s: float,
    *,
    real_labels: torch.Tensor | None = None,
    vendi_images: int | None = None,
) -> ImageSet:
    """Energies, precision/recall and diversity of a synthetic set against features of real pictures (n, d).

    Args:
        name: what the set is called.
        samples: all of its images.
        real_features: of the real pictures, by the same network.
        network: it gives the features.
        k: neighbours of precision, recall, density and coverage.
        batch_size: pictures seen at once.
        images_per_s: how fast they were made.
        real_labels: classes of the real pictures; None leaves coverage by class out.
        vendi_images: images of each class whose Vendi score is taken, see
            :func:`~prism_fast.evaluation.diversity.common_size`; None means as many as every class of this set has.
    """
    images = torch.stack([s.image for s in samples])
    logits = torch.stack([s.logits for s in samples])
    labels = torch.tensor([s.label for s in samples])
    made, right = Labelled(features_of(network, images, batch_size), labels), logits.argmax(1) == labels
    found: Prdc = prdc(real_features, made.features, k=k)
    size = common_size([made.counts()]) if vendi_images is None else vendi_images
    real = None if real_labels is None else Labelled(real_features, real_labels)
    classes = diversity_by_class(made, right, real, size=size, k=k)
    return ImageSet(
        name=name,
        images=len(samples),
        images_per_s=images_per_s,
        energies=tuple(free_energies(logits).tolist()),
        agreement=float(right.float().mean()),
        precision=found.precision,
        recall=found.recall,
        density=found.density,
        coverage=found.coverage,
        vendi=mean_vendi(classes),
        vendi_images=size,
        coverage_by_class=mean_coverage(classes),
        per_class=classes,
    )


def load_evaluation(path: Path) -> Evaluation | None:
    """``evaluation.json``, or None when there is none."""
    return Evaluation.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
