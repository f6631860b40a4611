"""How many pictures go through a network at once."""

from __future__ import annotations

import torch

#: On a processor. What a layer gives for more of them exceeds what the C library keeps for the next layer, so that
#: every layer's memory is had from the kernel page by page: EfficientNet-Lite0 at 128 px took 2.7 times as long by 64.
ON_A_PROCESSOR = 8


def at_once(device: torch.device, most: int) -> int:
    """Of ``most`` pictures that a caller has, so many in one pass; on a GPU all of them."""
    return min(most, ON_A_PROCESSOR) if device.type == "cpu" else most
