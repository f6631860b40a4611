"""Training state on disk: written atomically, checked by its own hash, read without running any pickled code."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, StrictFloat, StrictInt, TypeAdapter, ValidationError
from torch import Tensor

from prism_fast.errors import DataError, RunError
from prism_fast.storage.files import building, read
from prism_fast.storage.yaml_document import cut

#: The first line of a checkpoint, which ends with the SHA-256 of all that follows it; before, there was none.
_HEADER = b"prism-fast checkpoint, sha256 "
_HASH = 64


@dataclass(frozen=True)
class Checkpoint:
    """Everything that decides the steps after ``step``.

    Learning rate and random numbers are functions of ``step``, so neither has a state. ``identity`` names the recipe
    and the data: a checkpoint of another recipe is refused, never adapted.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    step: Annotated[StrictInt, Field(ge=1)]
    identity: dict[str, Any]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    loss: dict[str, Tensor]
    scaler: dict[str, Any]
    loader: dict[str, Any]
    history: Annotated[list[dict[str, StrictFloat]], Field(min_length=1)]


_CHECKPOINT = TypeAdapter(Checkpoint)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside the target, sync, rename: a killed process leaves the old checkpoint or the new one.

    Raises:
        RunError: the disk refused.
    """
    state = io.BytesIO()
    torch.save(vars(checkpoint), state)
    try:
        with building(path) as staged, open(staged, "wb") as stream:
            stream.write(_header(state.getbuffer()))
            stream.write(state.getbuffer())
    except OSError as error:
        raise RunError(f"cannot write checkpoint {path}: {error.strerror or error}") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        DataError: it is damaged, or none; the message says to delete it.
    """
    with checked(path):
        found = torch.load(io.BytesIO(_state(read(path))), map_location="cpu", weights_only=True)
        if isinstance(found, dict) and "rng" in found:
            raise ValueError("it is of a version whose batches were other ones")
        _CHECKPOINT.validate_python(found)
        checkpoint = Checkpoint(**found)  # as it was saved: what was validated are copies
        _require_step(checkpoint)
    return checkpoint


@contextmanager
def checked(path: Path) -> Iterator[None]:
    """Say what to do when a checkpoint cannot be read, or what it holds does not fit what it is restored to.

    Raises:
        DataError: that is so.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, EOFError, pickle.UnpicklingError, RuntimeError, LookupError, ValueError, TypeError,
            AttributeError, ArithmeticError, DataError) as error:  # fmt: skip
        raise DataError(
            f"{path} cannot be read as a checkpoint ({_reason(error)}); delete it and the training begins again"
        ) from error


def _header(state: memoryview) -> bytes:
    return _HEADER + hashlib.sha256(state).hexdigest().encode() + b"\n"


def _state(data: bytes) -> memoryview:
    """What torch reads; a checkpoint of before has no header."""
    whole = memoryview(data)
    if not data.startswith(_HEADER):
        return whole
    state = whole[len(_HEADER) + _HASH + 1 :]
    if whole[: len(whole) - len(state)] != _header(state):
        raise ValueError("its own hash is another one")
    return state


def _require_step(checkpoint: Checkpoint) -> None:
    """The history ends at the step, which is one of the recipe's."""
    step, steps = checkpoint.step, checkpoint.identity["steps"]
    if step > steps or checkpoint.history[-1]["step"] != step:
        raise ValueError(f"step {step} of {steps}, and its history ends at {checkpoint.history[-1]['step']}")


def _reason(error: Exception) -> str:
    """A few words; torch's own would advise to load what cannot be trusted."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "its content is another one"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    first_line = (str(error).splitlines() or [""])[0]
    return cut(first_line or type(error).__name__)
