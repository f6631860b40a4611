"""Devices by name, and the processor's threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prism_fast.errors import InputError

_SHOWN = 120


def require_device(name: str) -> torch.device:
    """The torch device called ``name``.

    Raises:
        InputError: it does not exist or cannot be used here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the meta device holds no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        reason = reason if len(reason) <= _SHOWN else f"{reason[: _SHOWN - 3]}..."  # torch lists all of its devices
        raise InputError(
            f"device {name!r} cannot be used here ({reason}); try cpu, or see 'prism-fast doctor'"
        ) from error
    return device


def gpu_name(device: str) -> str | None:
    """What kind of GPU ``device`` is: another kind rounds otherwise. None for a processor."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


@contextmanager
def shared_threads(streams: int) -> Iterator[None]:
    """Meanwhile torch computes each of ``streams`` calls with an equal share of its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // streams))
    try:
        yield
    finally:
        torch.set_num_threads(before)
