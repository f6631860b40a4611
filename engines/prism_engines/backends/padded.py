"""What compiled engines share: static shapes, so a small batch is padded and a large one is cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import Condition
from typing import Any, Self

import torch

from prism_engines.base import Opened
from prism_engines.errors import EngineInputError
from prism_engines.spec import EngineSpec, TensorSpec


class IdleHandles:
    """What no run has in hand: a stream gets back what it had last, for it would have to wait for another's run."""

    def __init__(self, handles: Sequence[Any]) -> None:
        self._free: list[tuple[Any, object]] = [(handle, None) for handle in handles]
        self._changed = Condition()

    def take(self, stream: object) -> Any:
        """The handle that ``stream`` had last, else one that nobody had, else the one that rests longest; or wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            owners = [owner for _, owner in self._free]
            choice = next((owners.index(wanted) for wanted in (stream, None) if wanted in owners), 0)
            return self._free.pop(choice)[0]

    def put(self, handle: Any, stream: object) -> None:
        """Give back what was taken for ``stream``."""
        with self._changed:
            self._free.append((handle, stream))
            self._changed.notify()


class PaddedEngine(Opened, ABC):
    """An engine of one fixed batch size that takes any batch of at least one row, from any thread.

    Missing rows repeat the last one, so every row goes through numbers that the engine really sees; rows never mix.

    Args:
        spec: what every run must look like.
        device_type: where inputs must lie and outputs will: ``cpu`` or ``cuda``.
        streams: runs at once that the library is asked for; a thread beyond what it gives waits its turn.
    """

    def __init__(self, spec: EngineSpec, device_type: str = "cpu", streams: int = 1) -> None:
        self.spec, self.name, self.device_type, self.streams = spec, spec.part, device_type, streams
        self._idle: IdleHandles | None = None

    def open(self) -> Self:
        """Load the engine; nothing happens when it is open already."""
        if self._idle is None:
            self._idle = IdleHandles(self._load())
        return self

    def close(self) -> None:
        """Free what ``open`` took."""
        self._idle = None

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs for as many rows as were given; the tensors belong to the caller."""
        if self._idle is None:
            raise EngineInputError(f"engine {self.name} is closed, expected an open one; call open() before run()")
        rows = check_inputs(self.spec, inputs, self.device_type)
        keep_for_stream(inputs)
        size = self.spec.batch
        idle, stream = self._idle, current_stream(inputs[0].device)
        handle = idle.take(stream)
        try:
            with torch.no_grad():
                parts = [self._run_chunk(handle, tuple(x[i : i + size] for x in inputs)) for i in range(0, rows, size)]
                return parts[0] if len(parts) == 1 else tuple(torch.cat(part) for part in zip(*parts, strict=True))
        finally:
            idle.put(handle, stream)

    def _run_chunk(self, handle: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        rows = inputs[0].shape[0]
        outputs = self._run_full(handle, tuple(pad_rows(x.detach(), self.spec.batch) for x in inputs))
        return tuple(out[:rows] for out in outputs)

    @abstractmethod
    def _load(self) -> Sequence[Any]:
        """What one run needs, once for each run that may go on at the same time: 1 to ``self.streams``."""

    @abstractmethod
    def _run_full(self, handle: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Fresh outputs for contiguous inputs of exactly ``spec.batch`` rows; nobody else has ``handle`` meanwhile."""


def pad_rows(x: torch.Tensor, rows: int) -> torch.Tensor:
    """``x`` in one piece of memory, with its last row repeated up to ``rows``."""
    missing = rows - x.shape[0]
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x.contiguous()


def current_stream(device: torch.device) -> int | None:
    """The stream that this thread works on; a processor has none."""
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else None


def keep_for_stream(inputs: tuple[torch.Tensor, ...]) -> None:
    """Tell torch that its current stream reads tensors: libraries get addresses, of which torch knows nothing.

    Without it, a tensor of another stream that the caller forgets would be given away before it has been read.
    """
    for x in inputs:
        if x.is_cuda:
            x.record_stream(torch.cuda.current_stream(x.device))


def check_inputs(spec: EngineSpec, inputs: tuple[torch.Tensor, ...], device_type: str) -> int:
    """Rows of a batch that fits ``spec``.

    Raises:
        EngineInputError: a tensor too many or too few, or one of another dtype, shape, device or number of rows.
    """
    names = ", ".join(tensor.name for tensor in spec.inputs)
    if len(inputs) != len(spec.inputs):
        raise EngineInputError(
            f"engine {spec.part}: {len(inputs)} inputs were given, expected {len(spec.inputs)}; pass {names}"
        )
    for tensor, x in zip(spec.inputs, inputs, strict=True):
        _check_input(spec, tensor, x, device_type)
    counts = {x.shape[0] for x in inputs}
    if len(counts) > 1:
        raise EngineInputError(
            f"engine {spec.part}: inputs {names} have {', '.join(str(x.shape[0]) for x in inputs)} rows, expected one"
            " number of rows; pass the same batch in each"
        )
    return counts.pop()


def _check_input(spec: EngineSpec, tensor: TensorSpec, x: torch.Tensor, device_type: str) -> None:
    fits = x.dim() == len(tensor.shape) and x.shape[1:] == tensor.shape[1:] and x.dtype == tensor.torch_dtype
    if fits and x.shape[0] > 0 and x.device.type == device_type:
        return
    given = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)} on {x.device.type}"
    expected = ", ".join(["n", *map(str, tensor.shape[1:])]) + ("," if len(tensor.shape) == 1 else "")
    raise EngineInputError(
        f"engine {spec.part}: input {tensor.name} is {given}, expected {tensor.dtype} ({expected}) with n >= 1 on"
        f" {device_type}; convert it, or build an engine for this shape"
    )
