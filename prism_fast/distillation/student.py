"""Students: timm architectures by name, stored as a classifier directory when they are trained."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from torch import nn

from prism_fast.errors import InputError, RunError
from prism_fast.models.classifier import ClassifierConfig, save_classifier

#: Normalisation of students that learn from stored logits; with a live teacher, the teacher's is used.
MEAN = STD = (0.5, 0.5, 0.5)


def create_student(name: str, num_classes: int) -> nn.Module:
    """A timm model with fresh weights, three input channels.

    Raises:
        InputError: timm knows no such model; the message offers close matches.
    """
    import timm

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = f"; did you mean {', '.join(close)}?" if close else "; `timm.list_models()` lists them"
        raise InputError(f"student {name!r} is not a timm model{hint}")
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=3)
    return model


def save_student(directory: Path, model: nn.Module, info: ClassifierConfig, history: list[dict[str, float]]) -> None:
    """Write ``history.json``, ``model.safetensors`` and ``config.json``.

    ``prism_fast.models.classifier.load_classifier`` reads the directory back.

    Raises:
        RunError: the disk refused.
    """
    from safetensors import SafetensorError

    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "history.json").write_text(json.dumps(history, indent=1) + "\n")
        save_classifier(model, info, directory)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write student to {directory}: {error}") from error
