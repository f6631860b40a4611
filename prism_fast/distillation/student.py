"""Students: by timm name or made from the teacher; stored as a classifier directory when they are trained."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prism_fast.config import DistillConfig
from prism_fast.distillation.inherit import ended_in, inherited
from prism_fast.errors import InputError, RunError
from prism_fast.models.architecture import refusal
from prism_fast.models.classifier import Classifier, ClassifierConfig, create_network, load_classifier, save_classifier
from prism_fast.storage.files import replace

#: Normalisation of fresh students that learn from stored logits; with a live teacher, the teacher's is used.
MEAN = STD = (0.5, 0.5, 0.5)


def make_student(
    recipe: DistillConfig,
    classes: int,
    teacher: Classifier | None = None,
    images: Callable[[], Iterator[Tensor]] | None = None,
) -> Classifier:
    """The student that one recipe asks for, on the CPU and in training mode, with what its pixels must look like.

    One that inherits weights sees pictures normalised as they were before; of a fresh one it is ``MEAN`` and ``STD``.
    ``teacher`` is needed where ``recipe.student_from`` is ``teacher`` or ``simkd`` is a loss, ``images`` (an iterator
    of batches, normalised for the teacher) where channels are pruned by gradient.

    Raises:
        InputError: an unknown student, one that takes no such picture, or one that cannot be made from the teacher.
        DataError: the directory of the first weights cannot be read.
    """
    if recipe.student_from == "teacher":
        if recipe.student_init is not None:
            raise InputError("distill.student_from is teacher, and student_init gives weights too; leave one out")
        return inherited(recipe, classes, _needed(teacher, "distill.student_from is teacher"), images)
    if any(term.name == "simkd" for term in recipe.terms()):
        if recipe.student_init is not None:
            raise InputError("a student that simkd makes begins with fresh weights; leave out distill.student_init")
        _require_known(recipe.student)
        return ended_in(recipe, classes, _needed(teacher, "simkd is a loss"))
    if recipe.student_init is not None:
        return _begun(recipe, classes, recipe.student_init)
    net = create_student(recipe.student, classes, recipe.image_size)
    config = ClassifierConfig(
        architecture=recipe.student, num_classes=classes, image_size=recipe.image_size, mean=MEAN, std=STD
    )
    return Classifier(net.train(), config)


def _needed(teacher: Classifier | None, why: str) -> Classifier:
    if teacher is None:
        raise InputError(f"{why}, and there is no teacher network; give models.teacher")
    return teacher


def _begun(recipe: DistillConfig, classes: int, directory: str) -> Classifier:
    """The network of a classifier directory, with a fresh classifier if it has other classes."""
    found = load_classifier(directory)
    config = found.config
    if config.architecture != recipe.student:
        raise InputError(
            f"distill.student_init {directory} holds a {config.architecture}; set distill.student to it, got "
            f"{recipe.student}"
        )
    if found.options:
        raise InputError(
            f"distill.student_init {directory} was made with timm's {', '.join(found.options)}: unsupported"
        )
    net: Any = found.net
    if config.num_classes != classes:
        if config.structure is not None:
            raise InputError(f"distill.student_init {directory} knows {config.num_classes} classes, expected {classes}")
        net.reset_classifier(classes)
    if recipe.image_size != config.image_size and refusal(net.eval(), recipe.image_size) is not None:
        if not hasattr(net, "set_input_size"):
            raise InputError(f"distill.student_init {directory} takes pictures of {config.image_size} px alone")
        net.set_input_size(img_size=(recipe.image_size, recipe.image_size))
    update = {"num_classes": classes, "image_size": recipe.image_size, "label_names": None, "tag": None}
    return Classifier(net.train().requires_grad_(True), config.model_copy(update=update))


def create_student(name: str, num_classes: int, image_size: int | None = None) -> nn.Module:
    """A timm model with fresh weights, three input channels, for pictures of any size or of ``image_size``.

    Raises:
        InputError: timm knows no such model, and the message offers close matches; or it takes no picture of that size.
    """
    import timm

    _require_known(name)
    if image_size is None:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=3)
        return model
    model = create_network(name, num_classes, image_size)
    try:
        _try(model, image_size)
    except Exception as error:  # architectures refuse a size with whatever their first layer that minds raises
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"student {name!r} cannot see pictures of {image_size} px ({why}); set distill.image_size"
        ) from error
    return model


def _require_known(name: str) -> None:
    import timm

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = f"; did you mean {', '.join(close)}?" if close else "; `timm.list_models()` lists them"
        raise InputError(f"student {name!r} is not a timm model{hint}")


def _try(model: nn.Module, image_size: int) -> None:
    """One picture through the fresh network; in eval mode nothing is drawn and no statistics change."""
    was = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, image_size, image_size))
    model.train(was)


def save_student(directory: Path, model: nn.Module, info: ClassifierConfig, history: list[dict[str, float]]) -> None:
    """Write ``history.json``, ``model.safetensors`` and ``config.json``.

    ``prism_fast.models.classifier.load_classifier`` reads the directory back.

    Raises:
        RunError: the disk refused.
    """
    from safetensors import SafetensorError

    try:
        directory.mkdir(parents=True, exist_ok=True)
        replace(directory / "history.json", (json.dumps(history, indent=1) + "\n").encode())
        save_classifier(model, info, directory)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        name = getattr(error, "filename2", None) or getattr(error, "filename", None) or directory
        raise RunError(f"cannot write the student's {name}: {why}; the same command again finishes it") from error
