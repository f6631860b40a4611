"""Where the bundled models are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from prism_fast.errors import DataError

_PARTS = {
    "diffusion": "diffusion/unet",
    "teacher": "teacher",
    "pictures": "test_pictures.parquet",
    "light_decoder": "light_decoder",
}


def assets() -> Path:
    """Directory of the bundled weights and pictures."""
    return Path(str(resources.files("prism_fast.minis"))) / "assets"


def resolve(name_or_path: str, part: str) -> str:
    """``minis`` to the bundled part's path; anything else as it is.

    Raises:
        DataError: the bundled part is not there.
    """
    if name_or_path != "minis":
        return name_or_path
    if not (assets() / _PARTS[part]).exists():
        raise DataError(f"the bundled {part} is missing; run 'prism-fast minis train' or install the package again")
    return str(assets() / part) if part != "pictures" else str(assets() / _PARTS[part])
