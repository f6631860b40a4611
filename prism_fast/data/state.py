"""A loader's position, as a checkpoint keeps it."""

from __future__ import annotations

from typing import Any

from prism_fast.errors import DataError


def state_of(loader: str, position: int) -> dict[str, Any]:
    """Position: pictures that all ranks were given."""
    return {"loader": loader, "position": position}


def position_of(loader: str, state: dict[str, Any]) -> int:
    """The position of a saved state.

    Raises:
        DataError: another loader saved it, or one of before there were positions.
    """
    if state.get("loader") != loader:
        raise DataError(f"loader state was saved by {state.get('loader')!r}, this is the {loader} loader")
    if not isinstance(state.get("position"), int):
        raise DataError(
            "loader state was saved by an older DALI loader, whose order of samples is gone; "
            "delete the checkpoint and begin training again"
        )
    return int(state["position"])
