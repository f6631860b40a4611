"""The configuration that a run directory was begun with."""

from __future__ import annotations

from pydantic import ValidationError

from prism_fast.config import RunConfig
from prism_fast.errors import DataError
from prism_fast.synthesis.rundir import RunDirectory


def stored_config(run: RunDirectory) -> RunConfig:
    """The configuration in ``run.json``.

    Raises:
        DataError: not a run directory, or a configuration of another version.
    """
    try:
        return RunConfig.model_validate(run.facts()["config"])
    except ValidationError as error:
        raise DataError(
            f"{run.path / 'run.json'} holds no configuration of this version; make the run again"
        ) from error
