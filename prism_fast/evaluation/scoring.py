"""Accuracy on a directory of pictures: in class folders, listed in a file, or with ImageNet's reassessed labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from prism_fast.errors import DataError, InputError
from prism_fast.evaluation._batched import stream_logits
from prism_fast.evaluation.accuracy import AnyOfTally, Tally, wilson_interval
from prism_fast.evaluation.class_folders import match_folders, within
from prism_fast.evaluation.comparison import Scored
from prism_fast.evaluation.folder import Crop, PictureFolder, crop_of, open_folder
from prism_fast.evaluation.listed import Listing, Reassessed, open_listed, open_reassessed
from prism_fast.labels.load import load_label_space
from prism_fast.models.class_order import require_label_order
from prism_fast.models.classifier import Classifier
from prism_fast.models.label_space import restricted

_IMAGENET = 1000  # classes that the reassessed labels are of


def score_pictures(
    name: str,
    classifier: Classifier,
    path: Path,
    batch_size: int,
    labels: str | None = None,
    device: str = "cpu",
    *,
    ground_truth: Path | None = None,
    real: Path | None = None,
) -> Scored:
    """Accuracy on the pictures in ``path``, cropped as the classifier's configuration says.

    Args:
        name: what the classifier is called in messages.
        classifier: it is moved to the device.
        path: class folders; with one of the two files, pictures side by side or in any folders.
        batch_size: pictures seen at once.
        labels: the classifier's label space.
        device: where it computes.
        ground_truth: a file of names and classes.
        real: reassessed-imagenet's ``real.json``.

    Raises:
        InputError: arguments that contradict each other, or a label space that does not fit. DataError: pictures or a
            file that cannot be read, or classes that nothing matches. RunError: the network answered with NaN.
    """
    crop = crop_of(classifier.config)
    if real is not None and ground_truth is not None:
        raise InputError("--real and --ground-truth both say which classes are right; give one of them")
    if ground_truth is not None:
        return score_listed(name, classifier, open_listed(path, ground_truth), crop, batch_size, labels, device)
    if real is None:
        return score_folder(name, classifier, open_folder(path), crop, batch_size, labels, device)
    if labels not in (None, "imagenet1k"):
        raise InputError(f"--real is for ImageNet's 1000 classes, --labels is {labels}; leave it out")
    _require_imagenet(name, classifier)
    return score_reassessed(name, classifier, open_reassessed(path, real, _IMAGENET), crop, batch_size, device)


def score_folder(
    name: str,
    classifier: Classifier,
    folder: PictureFolder,
    crop: Crop,
    batch_size: int,
    labels: str | None = None,
    device: str = "cpu",
) -> Scored:
    """Accuracy on a folder of pictures, one batch in memory after the other, among the classes that the folder has.

    If ``labels`` is a part of ImageNet, a classifier of all of it is asked about the part alone, and folders of its
    other classes are left out.

    Raises:
        InputError: one class, no such label space, or one of another size. DataError: folders that match no class, or a
            picture that cannot be read. RunError: the network answered with NaN or infinity.
    """
    return _score_classes(name, classifier, Listing(folder, 0), crop, batch_size, labels, device, "class folders")


def score_listed(
    name: str,
    classifier: Classifier,
    listing: Listing,
    crop: Crop,
    batch_size: int,
    labels: str | None = None,
    device: str = "cpu",
) -> Scored:
    """Accuracy on pictures whose classes stand in a file, among the classes that it has.

    Raises:
        InputError, DataError, RunError: as :func:`score_folder`.
    """
    return _score_classes(name, classifier, listing, crop, batch_size, labels, device, "classes of the file")


def score_reassessed(
    name: str, classifier: Classifier, found: Reassessed, crop: Crop, batch_size: int, device: str = "cpu"
) -> Scored:
    """Accuracy among ImageNet's 1,000 classes where several may be right for a picture (ReaL).

    Raises:
        InputError: a classifier of other classes, or in another order. DataError: a picture that cannot be read.
        RunError: the network answered with NaN or infinity.
    """
    _require_imagenet(name, classifier)
    tally = AnyOfTally(found.labels)
    _count(tally, classifier, found.pictures.batches(crop, _positive(batch_size)), device)
    return _scored(name, found.pictures, tally, found.left_out, _IMAGENET, _IMAGENET, "by the reassessed labels")


def _require_imagenet(name: str, classifier: Classifier) -> None:
    if (classes := classifier.config.num_classes) != _IMAGENET:
        raise InputError(f"{name} tells {classes} classes apart, the reassessed labels are of ImageNet's {_IMAGENET}")
    require_label_order(classifier.config, load_label_space("imagenet1k"))


def _score_classes(
    name: str,
    classifier: Classifier,
    listing: Listing,
    crop: Crop,
    batch_size: int,
    labels: str | None,
    device: str,
    what: str,
) -> Scored:
    folder = listing.pictures
    if labels is not None:
        space = load_label_space(labels)
        classifier, folder = restricted(classifier, space), folder.only(within(folder.folders, space))
        if not folder.samples:
            raise DataError(f"{folder.path} has no pictures of the {len(space.classes)} classes of {space.name}")
    config = classifier.config
    scored, matched = match_folders(folder.folders, config.num_classes, labels, config.label_names, what)
    tally = Tally(config.num_classes, scored)
    _count(tally, classifier, folder.batches(crop, _positive(batch_size)), device)
    left_out = listing.left_out + len(listing.pictures) - len(folder)
    return _scored(name, folder, tally, left_out, config.num_classes, len(scored), matched)


def _positive(batch_size: int) -> int:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    return batch_size


def _count(
    tally: Tally | AnyOfTally, classifier: Classifier, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], device: str
) -> None:
    for logits, places in stream_logits(classifier.net, batches, prepare=classifier.prepare, device=device):
        tally.add(logits, places)


def _scored(
    name: str,
    folder: PictureFolder,
    tally: Tally | AnyOfTally,
    left_out: int,
    classes: int,
    classes_scored: int,
    matched: str,
) -> Scored:
    low, high = wilson_interval(tally.successes, tally.n)
    return Scored(
        network=name,
        test_set=str(folder.path),
        n=tally.n,
        top1=tally.top1,
        top5=tally.top5,
        low=low,
        high=high,
        per_class=tally.per_class() if isinstance(tally, Tally) else (),
        confusion=tally.confusion() if isinstance(tally, Tally) else (),
        classes=classes,
        classes_scored=classes_scored,
        left_out=left_out,
        matched=matched,
    )
