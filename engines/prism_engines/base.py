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


class Opened:
    """``with engine:`` opens it and closes it again. What takes nothing has nothing more to write."""

    def open(self) -> Self:
        """Take what a run needs; returns itself."""
        return self

    def close(self) -> None:
        """Free what ``open`` took."""

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Around(Opened):
    """An engine around another one, which is opened and closed with it."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name = engine, engine.name

    def open(self) -> Self:
        """Open the engine inside."""
        self.engine.open()
        return self

    def close(self) -> None:
        """Close the engine inside."""
        self.engine.close()
