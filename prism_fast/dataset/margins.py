"""``margins.json``: what calibrates a run's guidance."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from prism_fast.dataset.sealed import Sealed
from prism_fast.storage.files import read_if_there


class Margins(Sealed):
    """Energies by class, and the models they were calibrated with."""

    models: dict[str, str]
    margins: dict[int, float]


def load_margins(path: Path) -> Margins | None:
    """What is stored at ``path``, if anything whole is: a damaged file is none, and its margins are made again."""
    data = read_if_there(path)
    try:
        return Margins.model_validate_json(data) if data is not None else None
    except ValidationError:  # cut short by a power failure, or its own hash is another one
        return None
