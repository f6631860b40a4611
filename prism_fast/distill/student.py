"""Students: timm architectures by name, and the directory a trained one is stored in.

The directory (``config.json`` + ``model.safetensors``) follows timm's own layout, so that
``timm.create_model("local-dir:PATH", pretrained=True)`` reads it too.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prism_fast.errors import DataError, InputError, RunError


@dataclass(frozen=True)
class StudentInfo:
    """What is needed to feed a stored student."""

    architecture: str
    num_classes: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


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


def save_student(directory: Path, state: dict[str, Tensor], info: StudentInfo) -> None:
    """Write weights, then the description, each atomically.

    Raises:
        RunError: the disk refused.
    """
    from safetensors.torch import save

    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / "model.safetensors", save({k: v.contiguous() for k, v in state.items()}))
        write_atomic(directory / "config.json", (json.dumps(_document(info), indent=2) + "\n").encode())
    except OSError as error:
        raise RunError(f"cannot write student to {directory}: {error}") from error


def load_student(directory: Path) -> tuple[nn.Module, StudentInfo]:
    """Read a stored student, in evaluation mode.

    Raises:
        DataError: a file is missing or does not fit the architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        info = _info(json.loads((directory / "config.json").read_text()))
        model = create_student(info.architecture, info.num_classes)
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, InputError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{directory} holds no readable student (config.json + model.safetensors): {why}") from error
    return model.eval(), info


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside the target, sync, rename."""
    partial = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _document(info: StudentInfo) -> dict[str, Any]:
    preprocessing = {
        "input_size": [3, info.image_size, info.image_size],
        "mean": list(info.mean),
        "std": list(info.std),
        "num_classes": info.num_classes,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
    return {"architecture": info.architecture, "num_classes": info.num_classes, "pretrained_cfg": preprocessing}


def _info(document: dict[str, Any]) -> StudentInfo:
    preprocessing = document["pretrained_cfg"]
    size: Sequence[int] = preprocessing["input_size"]
    return StudentInfo(
        str(document["architecture"]),
        int(document["num_classes"]),
        int(size[-1]),
        tuple(preprocessing["mean"]),
        tuple(preprocessing["std"]),
    )
