"""On which CUDA stream each stage works, and how one stage's tensors are handed to another without the host waiting.

========  ==============================================================================================
encode    prompts, of every batch on one stream: what is remembered of them is made and read there alone
denoise   ``launch.streams`` of them, in turn, so that the batches of two threads overlap
finish    one of its own, so that a batch is decoded while the next is denoised
========  ==============================================================================================

A hand-over is a mark on the stream that made the tensors and a wait for it on the one that reads them. The reading
stream is also entered with torch's allocator: memory belongs to the stream that it was made on, and would otherwise be
given out again there as soon as Python lets go of the tensor, while the other stream still reads it.

Weights, engines and time ids need none of this. They are loaded on the default stream, which every stream waits for
when a stage begins, and live as long as the run. What the host gives to a batch (noise, boxes, labels, margins) is
copied on the stream that reads it, from memory that torch keeps pinned until the copy has run.

Where nothing overlaps (one stream, ``launch.pipeline_depth`` 0) finishing shares the stream of denoising, and so its
memory: the allocator keeps what is free apart by stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Protocol

import torch

from prism_fast.config import LaunchConfig

Stage = Literal["encode", "denoise", "finish"]
#: Where on a stream something is ready: a CUDA event; None where nobody has to wait.
Mark = Any


class Streams(Protocol):
    """What the stages of a run work on."""

    def on(self, stage: Stage) -> AbstractContextManager[object]:
        """Meanwhile this thread works on a stream of ``stage``."""

    def mark(self) -> Mark:
        """What this thread was given to compute so far, on the stream that it works on."""

    def take(self, mark: Mark, tensors: Iterable[torch.Tensor]) -> None:
        """Let the stream that this thread works on wait for ``mark``, and read ``tensors``, which are ready then."""


class NoStreams:
    """On the host there is nothing to wait for."""

    def on(self, stage: Stage) -> AbstractContextManager[object]:
        """Nothing."""
        return nullcontext()

    def mark(self) -> Mark:
        """None."""
        return None

    def take(self, mark: Mark, tensors: Iterable[torch.Tensor]) -> None:
        """Nothing."""


class CudaStreams:
    """Streams of one GPU.

    Args:
        device: the GPU.
        denoising: batches denoised at once.
        overlap: whether one batch is finished while another is denoised.
        cuda: ``torch.cuda``, or what stands in for it.
    """

    def __init__(self, device: torch.device, denoising: int, overlap: bool, cuda: Any = torch.cuda) -> None:
        self.device, self.cuda = device, cuda
        denoise = self._some(denoising)
        finish = self._some(1) if overlap else denoise
        self._free: dict[Stage, deque[Any]] = {"encode": self._some(1), "denoise": denoise, "finish": finish}

    def _some(self, number: int) -> deque[Any]:
        return deque(self.cuda.Stream(self.device) for _ in range(number))

    @contextmanager
    def on(self, stage: Stage) -> Iterator[None]:
        """Meanwhile this thread works on the stream of ``stage`` that was given back first, or a new one."""
        free = self._free[stage]
        try:
            stream = free.popleft()
        except IndexError:  # more threads than were announced
            stream = self.cuda.Stream(self.device)
        try:
            stream.wait_stream(self.cuda.default_stream(self.device))
            with self.cuda.stream(stream):
                yield
        finally:
            free.append(stream)

    def mark(self) -> Mark:
        """An event on the current stream."""
        event = self.cuda.Event()
        event.record(self.cuda.current_stream(self.device))
        return event

    def take(self, mark: Mark, tensors: Iterable[torch.Tensor]) -> None:
        """The current stream waits for the event; the tensors' memory is kept until it has read them."""
        stream = self.cuda.current_stream(self.device)
        stream.wait_event(mark)
        for x in tensors:
            x.record_stream(stream)


def streams_of(device: torch.device, launch: LaunchConfig) -> Streams:
    """The streams of a run on ``device``; a fake CUDA device, without a driver, has none."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return NoStreams()
    return CudaStreams(device, launch.streams, overlap=launch.streams > 1 or launch.pipeline_depth > 0)
