"""Several tensors from the host to a device, or back, as one copy each way: every copy more is a wait more.

On CUDA both ways go through pinned memory. To the device nobody waits; to the host one event is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Where each tensor begins in the packed bytes: a multiple that the widest accesses of a GPU's kernels want.
ALIGNMENT = 256


def to_device(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Tensors of the host on ``device``; where that is the host itself, they as they are."""
    if device.type != "cuda":
        return [x.to(device) for x in tensors]
    packed = pack(tensors)
    if _can_pin():
        packed = packed.pin_memory()
    return unpack(packed.to(device, non_blocking=True), tensors)


def to_host(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of one device on the host, their values there; those of the host as they are."""
    device = tensors[0].device
    if device.type != "cuda":
        return [x.cpu() for x in tensors]
    packed = pack(tensors)
    host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=_can_pin())
    host.copy_(packed, non_blocking=True)
    wait_for(device)
    # Pinned memory is dear and samples live until their shard is written: it goes back to the next batch.
    return unpack(host.clone(), tensors)


def wait_for(device: torch.device) -> None:
    """Until the current stream of a CUDA device has done what it was given.

    The thread sleeps meanwhile: one that looks again and again would take a core from those that encode images.
    """
    if torch.cuda.is_available():  # a fake device has no stream
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(device))
        event.synchronize()


def _can_pin() -> bool:
    """Whether there is a driver: a fake CUDA tensor may exist on a machine without one."""
    return torch.cuda.is_available()


def pack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The bytes of all of them behind one another, each from a multiple of ``ALIGNMENT`` on: uint8, one dimension."""
    pieces = []
    for x in tensors:
        data = x.contiguous().flatten().view(torch.uint8)
        pieces += [data, data.new_zeros(-len(data) % ALIGNMENT)]
    return torch.cat(pieces)


def unpack(packed: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What :func:`pack` packed, as views of the bytes."""
    found, start = [], 0
    for x in like:
        size = x.numel() * x.element_size()
        found.append(packed[start : start + size].view(x.dtype).view(x.shape))
        start += size + -size % ALIGNMENT
    return found
