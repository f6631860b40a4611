"""What every engine is: something opened once, run many times, and closed."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import torch


class Engine(Protocol):
    """A network, or the gradient of one, ready to run.

    Inputs and outputs are positional tensors; an engine never couples the samples of a batch.
    """

    name: str

    def open(self) -> Self:
        """Load weights and allocate buffers; returns itself."""
        ...

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs for one batch. The tensors belong to the caller until the next ``run``."""
        ...

    def close(self) -> None:
        """Free what ``open`` took."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
