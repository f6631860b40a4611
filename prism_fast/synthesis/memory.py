"""Memory that does not suffice, as an error of ours that says what to make smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prism_engines.memory import is_out_of_memory, smaller

from prism_fast.errors import RunError


@contextmanager
def enough_memory() -> Iterator[None]:
    """Whatever torch or an engine raises inside when memory ran out becomes one error.

    Raises:
        RunError: memory ran out; other errors come through as they are.
    """
    try:
        yield
    except Exception as error:  # the libraries' errors share no base class
        if is_out_of_memory(error):
            raise RunError(f"out of memory; {smaller()}") from error
        raise
