"""What is done with a student once it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism_fast.operations.export_student import Exported, Format


def export_student(
    student: Path | str,
    out: Path | str,
    formats: Sequence[Format] = ("safetensors", "onnx", "torch"),
    *,
    half: bool = False,
    latency: bool = False,
) -> Exported:
    """Write a student for other tools, each file compared with the student itself, and a model card.

    Args:
        student: what ``distill`` wrote, or any classifier directory.
        out: a new or empty folder.
        formats: ``safetensors`` (timm's directory, as on the hub), ``onnx``, ``torch`` (torch.export); of several, one
            that this network cannot have is left out and named in the result's notes.
        half: weights in float16.
        latency: measure milliseconds for the model card.

    Raises:
        InputError: a format that it cannot have, a package that is missing, or ``out`` is not empty. DataError: there
            is no such student, or it is incomplete. RunError: a format does not give the student's logits, or the disk
            refused.
    """
    from prism_fast.process import prepare

    prepare()
    from prism_fast.operations.export_student import export_student as write
    from prism_fast.storage.paths import local_path

    return write(local_path(student), local_path(out), formats, half=half, latency=latency)
