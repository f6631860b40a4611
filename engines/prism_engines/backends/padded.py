"""What compiled engines share: static shapes, so a small batch is padded and a large one is cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import torch

from prism_engines.errors import EngineInputError
from prism_engines.spec import EngineSpec, TensorSpec


class PaddedEngine(ABC):
    """An engine of one fixed batch size that takes any batch of at least one row.

    Missing rows repeat the last one, so every row goes through numbers that the engine really sees; rows never mix.

    Args:
        spec: what every run must look like.
        device_type: where inputs must lie and outputs will: ``cpu`` or ``cuda``.
    """

    def __init__(self, spec: EngineSpec, device_type: str = "cpu") -> None:
        self.spec, self.name, self.device_type = spec, spec.part, device_type
        self._handle: Any = None

    def open(self) -> Self:
        """Load the engine; nothing happens when it is open already."""
        if self._handle is None:
            self._handle = self._load()
        return self

    def close(self) -> None:
        """Free what ``open`` took."""
        self._handle = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs for as many rows as were given; the tensors belong to the caller."""
        if self._handle is None:
            raise EngineInputError(f"engine {self.name} is closed, expected an open one; call open() before run()")
        rows = check_inputs(self.spec, inputs, self.device_type)
        size = self.spec.batch
        with torch.no_grad():
            chunks = [self._run_chunk(tuple(x[i : i + size] for x in inputs)) for i in range(0, rows, size)]
            return chunks[0] if len(chunks) == 1 else tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))

    def _run_chunk(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        rows = inputs[0].shape[0]
        outputs = self._run_full(tuple(pad_rows(x.detach(), self.spec.batch) for x in inputs))
        return tuple(out[:rows] for out in outputs)

    @abstractmethod
    def _load(self) -> Any:
        """What the library needs to run; kept in ``self._handle`` while the engine is open."""

    @abstractmethod
    def _run_full(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Fresh outputs for contiguous inputs of exactly ``spec.batch`` rows."""


def pad_rows(x: torch.Tensor, rows: int) -> torch.Tensor:
    """``x`` in one piece of memory, with its last row repeated up to ``rows``."""
    missing = rows - x.shape[0]
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x.contiguous()


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
