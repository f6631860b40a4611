"""Where the time of training steps goes: waiting for a batch, the teacher's pass, and the rest, which is the student's.

On CUDA the marks are events in the stream that trains: between two of them lies what the device did or waited for, not
the host, and nobody waits for one before the last step is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from benchmarks import harness, processes
from prism_fast.data.batch import Batch
from prism_fast.data.loader import Loader
from prism_fast.distillation.outputs import Outputs

T = TypeVar("T")


class Clock(Protocol):
    """Marks of time."""

    def mark(self) -> Any: ...

    def seconds(self, earlier: Any, later: Any) -> float: ...


class HostClock:
    """The host's."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, earlier: float, later: float) -> float:
        return later - earlier


class CudaClock:
    """Events of the current stream, made by ``event``."""

    def __init__(self, event: Callable[[], Any] | None = None) -> None:
        self.event = event or partial(torch.cuda.Event, enable_timing=True)

    def mark(self) -> Any:
        event = self.event()
        event.record()
        return event

    def seconds(self, earlier: Any, later: Any) -> float:
        later.synchronize()
        return float(earlier.elapsed_time(later)) / 1e3


class Split:
    """Marks of a training's steps, of which the first ``warm`` are not counted.

    Attributes:
        images: pictures in all batches, warm-up included.
        targets: the teacher's logits of the first batch.
        peak: bytes of memory until the last step.
        taken: what ``memory`` then says.
    """

    def __init__(self, clock: Clock, warm: int, memory: Callable[[], int | None] = lambda: None) -> None:
        self.clock, self.warm, self.memory = clock, warm, memory
        self.taken: int | None = None
        self.images = self.read = self.peak = 0
        self.targets: Tensor | None = None
        self._loads: list[tuple[Any, Any]] = []
        self._passes: list[tuple[int, Any, Any]] = []
        self._end: Any = None

    def load(self, take: Callable[[], T]) -> T:
        """A step's batch from ``take``; the step begins here."""
        if len(self._loads) == self.warm:
            self.read = -processes.read_bytes()
        began = self.clock.mark()
        batch = take()
        self._loads.append((began, self.clock.mark()))
        return batch

    def watch(self, teacher: nn.Module) -> None:
        """Mark the passes of a live teacher."""
        began: list[Any] = []

        def before(module: nn.Module, inputs: Any) -> None:
            began.append(self.clock.mark())

        def after(module: nn.Module, inputs: Any, found: Tensor | Outputs) -> None:
            self._passes.append((len(self._loads), began.pop(), self.clock.mark()))
            self.first(found.logits if isinstance(found, Outputs) else found)

        teacher.register_forward_pre_hook(before)
        teacher.register_forward_hook(after)

    def first(self, targets: Tensor) -> None:
        """Keep the targets of the first batch."""
        if self.targets is None:
            self.targets = targets.detach().clone()

    def end(self) -> None:
        """The last step is done."""
        self._end = self.clock.mark()
        self.read += processes.read_bytes()
        self.peak, self.taken = processes.peak_bytes(), self.memory()

    def row(self) -> harness.Row:
        """Seconds of the counted steps, what of them was waited for data, what the teacher took, and bytes read."""
        timed = self._loads[self.warm :]
        passes = [marks for step, *marks in self._passes if step > self.warm]
        seconds = self.clock.seconds
        return {
            "seconds": seconds(timed[0][0], self._end),
            "wait_s": sum(seconds(*marks) for marks in timed),
            "teacher_s": sum(seconds(*marks) for marks in passes),
            "read_bytes": self.read,
            "all_images": self.images,
            "peak_rss_bytes": self.peak,
            "cuda_bytes": self.taken,
        }


class Fed:
    """A loader of ours whose batches are marked; see :class:`prism_fast.data.loader.Loader`."""

    def __init__(self, loader: Loader, split: Split, live: bool) -> None:
        self.loader, self.split, self.live = loader, split, live

    def __iter__(self) -> Fed:
        return self

    def __next__(self) -> Batch:
        batch = self.split.load(self.loader.__next__)
        self.split.images += len(batch.labels)
        if not self.live:
            self.split.first(batch.logits)
        return batch

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)

    def close(self) -> None:
        self.loader.close()
