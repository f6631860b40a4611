"""Exporters and compilers talk; what they say while all goes well is not for our users."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and log records of other libraries away; their exceptions still come through."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def root_cause(error: BaseException) -> str:
    """First line of the innermost cause that has a message: the exporters wrap theirs in pages of advice."""
    said = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        lines = str(cause).strip().splitlines()
        said = lines[0].strip() if lines else said
        cause = cause.__cause__
    return said
