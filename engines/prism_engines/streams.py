"""The stream of a GPU that a library is given to work on."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def working_stream(device: torch.device) -> Iterator[torch.cuda.Stream]:
    """The current stream of torch or, in place of the default one, a stream in step with it; current inside.

    TensorRT waits for the whole GPU when it is given the default stream, and what runs there cannot be captured as a
    graph. The stream beside it begins after what is on the default one, which goes on after it: memory that torch has
    on the default stream is safe to use inside. The host waits for neither.
    """
    current = torch.cuda.current_stream(device)
    if current != torch.cuda.default_stream(device):
        yield current
        return
    beside = _beside(current.device)
    beside.wait_stream(current)
    try:
        with torch.cuda.stream(beside):
            yield beside
    finally:
        current.wait_stream(beside)


@functools.cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
