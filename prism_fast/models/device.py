"""Devices by name, and the processor's threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prism_fast.errors import InputError


def require_device(name: str) -> torch.device:
    """The torch device called ``name``.

    Raises:
        InputError: it does not exist or cannot be used here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {name!r} cannot be used here ({reason}); try cpu, or see 'prism-fast doctor'"
        ) from error
    return device


@contextmanager
def shared_threads(streams: int) -> Iterator[None]:
    """Meanwhile torch computes each of ``streams`` calls with an equal share of its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // streams))
    try:
        yield
    finally:
        torch.set_num_threads(before)
