"""An opened TensorRT engine: contexts that share memory, wait for each other on the GPU, and keep their kernels."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prism_engines.backends.padded import PaddedEngine, keep_for_stream
from prism_engines.caches import FOLDER, cache_file, keep_cache, read_cache
from prism_engines.errors import EngineError, EngineInputError
from prism_engines.scratch import ScratchMemory
from prism_engines.spec import EngineSpec, is_cuda
from prism_engines.streams import working_stream

FILE = "model.engine"
#: TensorRT's names of element types.
DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "BOOL": torch.bool,
}

Tensors = tuple[torch.Tensor, ...]


@dataclass
class _Context:
    """One execution context: its run must be over on the GPU before it can begin another one, on any stream.

    Attributes:
        library: the context itself; it needs its engine, and the engine its runtime.
        done: what the GPU reaches when the last run is over.
        fixed: inputs and outputs that a captured graph knows by their addresses; ``None`` without a graph.
    """

    runtime: Any
    engine: Any
    library: Any
    done: Any = None
    fixed: tuple[Tensors, Tensors] | None = None

    def launch(self, names: tuple[str, ...], tensors: Tensors, memory: torch.Tensor, stream: Any) -> bool:
        """Start a run on the stream; whether the library did."""
        for name, tensor in zip(names, tensors, strict=True):
            self.library.set_tensor_address(name, tensor.data_ptr())
        self.library.set_device_memory(memory.data_ptr(), len(memory))
        return bool(self.library.execute_async_v3(stream.cuda_stream))


class TensorRtEngine(PaddedEngine):
    """A built engine on the GPU of ``spec.device``, one context a stream.

    Runs go to torch's current stream and come back before they are done, as torch's own operators do.

    Args:
        trt: the library, ``tensorrt`` or ``tensorrt_rtx``.
        spec: what every run must look like.
        folder: where the engine was written.
        streams: contexts; with a single one, TensorRT-RTX captures a run as a CUDA graph. More would run on streams
            with another scratch memory each time, and be captured again and again.
        scratch: the memory that contexts compute in.
    """

    def __init__(self, trt: Any, spec: EngineSpec, folder: Path, streams: int, scratch: ScratchMemory) -> None:
        super().__init__(spec, torch.device(spec.device).type, streams)
        self.trt, self.folder, self.scratch = trt, folder, scratch
        self.captures = streams == 1 and hasattr(trt, "CudaGraphStrategy")
        self._reserved: int | None = None

    def close(self) -> None:
        """Free the contexts, and the scratch memory if no other engine uses it."""
        super().close()
        if self._reserved is not None:
            self.scratch.release(self._reserved)
            self._reserved = None

    def _load(self) -> list[_Context]:
        logger = quiet_logger(self.trt)
        with on_device(self.spec.device):
            runtime = self.trt.Runtime(logger)
            engine = runtime.deserialize_cuda_engine((self.folder / FILE).read_bytes())
            if engine is None:
                raise EngineInputError(f"{self._library} does not open part {self.name}: {logger.first_error}")
            contexts = self._contexts(engine)
            size = int(engine.device_memory_size_v2)
        if None in contexts:  # it says what is wrong to the logger alone
            raise EngineError(f"{self._library} gives no context for part {self.name}: {logger.first_error}")
        self.scratch.reserve(size)
        self._reserved = size
        return [_Context(runtime, engine, context) for context in contexts]

    @property
    def _library(self) -> str:
        return str(self.trt.__name__)

    def _contexts(self, engine: Any) -> list[Any]:
        """Contexts without memory; TensorRT-RTX compiles its kernels here, or finds them in the file beside it."""
        by_us = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(self.trt, "IRuntimeCache"):
            return [engine.create_execution_context(by_us) for _ in range(self.streams)]
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(by_us)
        if self.captures:
            config.cuda_graph_strategy = self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        cache, file = config.create_runtime_cache(), self._kernels_file()
        kept = read_cache(file)
        if kept and not cache.deserialize(kept):  # damaged, or another driver's
            kept = b""
        config.set_runtime_cache(cache)
        contexts = [engine.create_execution_context(config) for _ in range(self.streams)]
        compiled = cache.serialize()
        if compiled is not None and bytes(compiled) != kept:
            keep_cache(file, bytes(compiled))
        return contexts

    def _kernels_file(self) -> Path:
        gpu = torch.cuda.get_device_name(self.spec.device) if is_cuda(self.spec.device) else ""
        return cache_file(self.folder / FOLDER, "kernels", str(self.trt.__version__), gpu)

    def _run_full(self, handle: _Context, inputs: Tensors) -> Tensors:
        names = (*(tensor.name for tensor in self.spec.inputs), *self.spec.outputs)
        # Of the current stream, so that torch gives their memory to others in the caller's order.
        outputs = tuple(self._empty(handle.engine, name, inputs[0].device) for name in self.spec.outputs)
        with (
            on_device(self.spec.device),
            working_stream(inputs[0].device) as stream,
            self.scratch.lend(stream) as memory,
        ):
            if handle.done is not None:
                stream.wait_event(handle.done)
            try:
                placed_in, placed_out = self._placed(handle, inputs, outputs)
                started = handle.launch(names, (*placed_in, *placed_out), memory, stream)
                if placed_out is not outputs:
                    copy_each(outputs, placed_out)
            finally:
                handle.done = stream.record_event()
        if not started:
            raise EngineInputError(f"{self._library} did not run part {self.name}; rebuild the engine on this machine")
        return outputs

    def _placed(self, handle: _Context, inputs: Tensors, outputs: Tensors) -> tuple[Tensors, Tensors]:
        """Where the context reads and writes: what it was given or, for a graph, always the same."""
        if not self.captures:
            return inputs, outputs
        if handle.fixed is None:
            handle.fixed = (tuple(map(torch.empty_like, inputs)), tuple(map(torch.empty_like, outputs)))
        copy_each(handle.fixed[0], inputs)
        keep_for_stream((*handle.fixed[0], *handle.fixed[1]))
        return handle.fixed

    def _empty(self, engine: Any, name: str, device: torch.device) -> torch.Tensor:
        dtype = DTYPES[engine.get_tensor_dtype(name).name]
        return torch.empty(tuple(engine.get_tensor_shape(name)), dtype=dtype, device=device)


def copy_each(into: Tensors, given: Tensors) -> None:
    """Copy tensors into others, on the current stream."""
    for a, b in zip(into, given, strict=True):
        a.copy_(b)


def quiet_logger(trt: Any) -> Any:
    """A logger that prints nothing and keeps the first error: the library's calls return only None or False."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # its base class exists only once the library is imported
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.first_error = "no message"

        def log(self, severity: Any, message: str) -> None:
            serious = severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
            if serious and self.first_error == "no message":
                self.first_error = message.strip().splitlines()[0]

    return Logger()


def on_device(device: str) -> AbstractContextManager[object]:
    """The library works on the thread's current GPU: the run's own while inside."""
    return torch.cuda.device(device) if is_cuda(device) and torch.cuda.is_available() else nullcontext()
