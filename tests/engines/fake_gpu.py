"""A GPU that does its work late: streams are queues, emptied in an order that chance picks, as far as events allow.

Its memory is the host's, which torch gives away at once and not in the order of a stream: a test holds what it passes
and is given. A TensorRT for it computes in two steps, through the scratch memory that it was given.
"""

from __future__ import annotations

import ctypes
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch


class Event:
    reached = False


class Stream:
    """What the code under test calls of ``torch.cuda.Stream``."""

    device = torch.device("cpu")

    def __init__(self, handle: int) -> None:
        self.cuda_stream = handle
        self.queue: deque[Callable[[], object] | Event] = deque()

    def add(self, work: Callable[[], object]) -> None:
        self.queue.append(work)

    def wait_event(self, event: Event) -> None:
        self.queue.append(event)

    def record_event(self) -> Event:
        event = Event()
        self.add(lambda: setattr(event, "reached", True))
        return event

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())

    def step(self) -> bool:
        """Do the next thing; whether it could be done."""
        if not self.queue:
            return False
        first = self.queue[0]
        if isinstance(first, Event):
            if not first.reached:
                return False
        else:
            first()
        self.queue.popleft()
        return True


class Gpu:
    """Installed in place of torch's streams; the current one belongs to the thread, as torch's does."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.streams: dict[int, Stream] = {0: Stream(0)}
        self._thread = threading.local()
        patch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        patch.setattr(torch.cuda, "default_stream", lambda device=None: self.streams[0])
        patch.setattr(torch.cuda, "Stream", lambda device=None: self.new())
        patch.setattr(torch.cuda, "stream", self.on)

    @property
    def current(self) -> Stream:
        return getattr(self._thread, "stream", self.streams[0])

    def new(self) -> Stream:
        stream = Stream(len(self.streams))
        self.streams[stream.cuda_stream] = stream
        return stream

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self._thread.stream = self.current, stream
        try:
            yield
        finally:
            self._thread.stream = before

    def finish(self, chance: random.Random) -> None:
        """Do all work, one step of some stream after another."""
        while any(s.queue for s in self.streams.values()):
            ready = list(self.streams.values())
            chance.shuffle(ready)
            assert any(stream.step() for stream in ready), "every stream waits for another one"


def floats(address: int, count: int) -> Any:
    return (ctypes.c_float * count).from_address(address)


class Context:
    """An execution context: twice each input, by way of the scratch memory. It cannot run twice at once."""

    def __init__(self, library: Library, engine: Engine) -> None:
        self.library, self.engine = library, engine
        self.addresses: dict[str, int] = {}
        self.memory, self.size = 0, 0
        self.running = False

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.library.log.append(("address", name, address))
        self.addresses[name] = address
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        self.library.log.append(("memory", address, size))
        self.memory, self.size = address, size

    def execute_async_v3(self, handle: int) -> bool:
        self.library.log.append(("execute", handle, None))
        assert self.size >= self.engine.device_memory_size_v2, "too little memory"
        if not self.library.starts:
            return False
        stream, count = self.library.gpu.streams[handle], math.prod(self.engine.shape)
        given, made, memory = self.addresses["x"], self.addresses["y"], self.memory

        def begin() -> None:
            self.library.overlaps += self.running
            self.running = True
            floats(memory, count)[:] = [2 * x for x in floats(given, count)]

        def end() -> None:
            floats(made, count)[:] = floats(memory, count)[:]
            self.running = False

        stream.add(begin)
        time.sleep(0.001)  # another thread may start something on the same stream now
        stream.add(end)
        return True


class Engine:
    def __init__(self, library: Library, size: int, shape: tuple[int, ...]) -> None:
        self.library, self.device_memory_size_v2, self.shape = library, size, shape

    def create_execution_context(self, how: Any) -> Context:
        self.library.asked.append(how)
        return Context(self.library, self)

    def create_runtime_config(self) -> Config:
        return Config(self.library)

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape


class Cache:
    """Kernels by name. Opening compiles one that is not among them."""

    def __init__(self) -> None:
        self.data = b""

    def deserialize(self, data: bytes) -> bool:
        if not data.startswith(b"kernels"):
            return False
        self.data = data
        return True

    def serialize(self) -> bytes:
        return self.data or b"kernels compiled"


class Config:
    """Kept by the library, so that a test sees what was asked for."""

    def __init__(self, library: Library) -> None:
        self.cuda_graph_strategy = "DISABLED"
        self.strategy, self.cache = "", Cache()
        library.configs.append(self)

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


class Library:
    """The module ``tensorrt``; an engine's file holds the bytes of memory that it needs.

    Args:
        gpu: where it computes.
        shape: of the input ``x`` and of the output ``y``.
        rtx: whether it has what only ``tensorrt_rtx`` has.
    """

    __version__ = "1.0"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="by us")
    ILogger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)})

    def __init__(self, gpu: Gpu, shape: tuple[int, ...], rtx: bool = False) -> None:
        self.gpu, self.shape = gpu, shape
        self.__name__ = "tensorrt_rtx" if rtx else "tensorrt"
        self.log: list[tuple[str, Any, Any]] = []
        self.asked: list[Any] = []
        self.configs: list[Config] = []
        self.overlaps = 0
        self.starts = True
        if rtx:
            self.IRuntimeCache = Cache
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE")

    def Runtime(self, logger: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda data: Engine(self, int(data), self.shape))
