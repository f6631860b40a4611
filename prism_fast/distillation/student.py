"""Students: timm architectures by name, stored as a classifier directory when they are trained."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import torch
from torch import nn

from prism_fast.errors import InputError, RunError
from prism_fast.models.classifier import ClassifierConfig, create_network, save_classifier
from prism_fast.storage.files import replace

#: Normalisation of students that learn from stored logits; with a live teacher, the teacher's is used.
MEAN = STD = (0.5, 0.5, 0.5)


def create_student(name: str, num_classes: int, image_size: int | None = None) -> nn.Module:
    """A timm model with fresh weights, three input channels, for pictures of any size or of ``image_size``.

    Raises:
        InputError: timm knows no such model, and the message offers close matches; or it takes no picture of that size.
    """
    import timm

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = f"; did you mean {', '.join(close)}?" if close else "; `timm.list_models()` lists them"
        raise InputError(f"student {name!r} is not a timm model{hint}")
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
