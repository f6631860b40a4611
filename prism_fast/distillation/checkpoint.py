"""Training state on disk: written atomically, read without running any pickled code."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prism_fast.errors import RunError
from prism_fast.storage.files import building


@dataclass(frozen=True)
class Checkpoint:
    """Everything that decides the steps after ``step``.

    The learning rate is a function of ``step``, so there is no scheduler state. ``identity`` names the recipe and the
    data: a checkpoint of another recipe is refused, never adapted.
    """

    step: int
    identity: dict[str, Any]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    loader: dict[str, Any]
    rng: dict[str, Tensor]
    history: list[dict[str, float]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside the target, sync, rename: a killed process leaves the old checkpoint or the new one.

    Raises:
        RunError: the disk refused.
    """
    try:
        with building(path) as staged:
            torch.save(vars(checkpoint), staged)
    except (OSError, RuntimeError) as error:
        raise RunError(f"cannot write checkpoint {path}: {error}") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        RunError: it cannot be read; the message says to delete it.
    """
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"checkpoint {path} cannot be read ({why}); delete it to start over") from error


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """State of the generators that layers such as dropout draw from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put the generators back."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
