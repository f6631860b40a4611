"""Where the bundled models and pictures are, and which styles of the pictures each of them knows."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from prism_fast.errors import DataError, InputError

_PARTS = {
    "diffusion": "diffusion/unet",
    "teacher": "teacher",
    "pictures": "test_pictures.parquet",
    "light_decoder": "light_decoder",
}

#: Styles whose labels the teacher was trained on.
TEACHER_STYLES = ("noto", "blob", "twemoji", "emojione")
#: Styles the text-to-image model was trained on: it knows two that the teacher does not.
GENERATOR_STYLES = (*TEACHER_STYLES, "fluent", "fluent 3d")
#: Styles that nobody was trained on: the domain-shift test set.
SHIFT_STYLES = ("openmoji", "firefox", "emojione legacy")


def assets() -> Path:
    """Directory of the bundled weights and pictures."""
    return Path(str(resources.files("prism_fast"))) / "minis" / "assets"


def resolve(name_or_path: str, part: str) -> str:
    """``minis`` to the bundled part's path; anything else as it is, ``~`` being the home directory.

    Raises:
        DataError: the bundled part is not there. InputError: the name is empty, as a shell's variable that is not set.
    """
    if not name_or_path.strip():
        raise InputError(f"models.{part} names nothing; give a directory, or 'minis' for the bundled one")
    if name_or_path != "minis":
        return os.path.expanduser(name_or_path)
    if not (assets() / _PARTS[part]).exists():
        raise DataError(f"the bundled {part} is missing; run 'prism-fast minis train' or install the package again")
    return str(assets() / part) if part != "pictures" else str(assets() / _PARTS[part])
