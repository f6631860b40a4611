"""The most memory that something took of a GPU: torch's, and what engines took beside it."""

from __future__ import annotations

import gc
import resource

import torch


class Memory:
    """Begins to count where it is made; on another device than a GPU, the whole process counts."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self.device = device
        self._beside = self._taken_beside_torch()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def _taken_beside_torch(self) -> int:
        """Bytes of the GPU that are not torch's own, those of other processes included."""
        if self.device.type != "cuda":
            return 0
        free, whole = torch.cuda.mem_get_info(self.device)
        return int(whole - free - torch.cuda.memory_reserved(self.device))

    def peak_bytes(self) -> int:
        """Torch's peak, and what is taken beside it now and was not before."""
        if self.device.type != "cuda":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        more = self._taken_beside_torch() - self._beside
        return int(torch.cuda.max_memory_allocated(self.device)) + max(0, more)
