"""Memory of a GPU for what an engine computes in between: one buffer a stream, which all engines use in turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class _Lane:
    """One stream's buffer, and who is starting work with it."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    memory: torch.Tensor | None = None


class ScratchMemory:
    """As much as the largest of the open engines needs, once for each stream that they run on.

    A stream does its work in order, so engines that run on one can use the same memory: that of one run is free when
    the next begins. What two threads start on one stream must not be mixed; the second waits until the first has
    started all of it, not until it is done.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._sizes: list[int] = []
        self._lanes: dict[int, _Lane] = {}
        self._lock = threading.Lock()

    def reserve(self, size_bytes: int) -> None:
        """From now on an engine needs so much."""
        with self._lock:
            self._sizes.append(size_bytes)

    def release(self, size_bytes: int) -> None:
        """An engine that needed so much is closed; after the last one the memory goes back to torch."""
        with self._lock:
            self._sizes.remove(size_bytes)
            if not self._sizes:
                self._lanes.clear()

    @contextmanager
    def lend(self, stream: torch.cuda.Stream) -> Iterator[torch.Tensor]:
        """The bytes for what is started on ``stream`` inside."""
        with self._lock:
            lane = self._lanes.setdefault(stream.cuda_stream, _Lane())
            size = max(1, *self._sizes)
        with lane.turn:
            if lane.memory is None or len(lane.memory) < size:
                lane.memory = None  # first: the new one may not fit beside it
                with torch.cuda.stream(stream):  # torch gives memory back in the order of its stream
                    lane.memory = torch.empty(size, dtype=torch.uint8, device=self.device)
            yield lane.memory


_shared: dict[str, ScratchMemory] = {}


def shared_scratch(device: str) -> ScratchMemory:
    """The memory of a device that all engines of this process share."""
    return _shared.setdefault(device, ScratchMemory(device))
