"""``engines.json``: what a run was begun with."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from prism_fast.dataset.sealed import Sealed
from prism_fast.errors import DataError
from prism_fast.storage.files import read_if_there


class MadeWith(Sealed):
    """The weights, the engines and the kind of GPU that a run was begun with; its first worker decides for all.

    ``gpu`` is absent on a CPU, and in runs of before it was written.
    """

    models: dict[str, str]
    engines: dict[str, str]
    gpu: str | None = None


def load_made_with(path: Path) -> MadeWith | None:
    """What is stored at ``path``, if anything is.

    Raises:
        DataError: it is damaged.
    """
    data = read_if_there(path)
    try:
        return MadeWith.model_validate_json(data) if data is not None else None
    except ValidationError as error:
        raise DataError(f"{path} does not say which engines the run was begun with; delete it and go on") from error
