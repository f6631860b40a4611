"""Devices by name."""

from __future__ import annotations

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
