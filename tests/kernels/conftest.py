"""What the kernels' tests share."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import prism_kernels
import pytest
from prism_kernels._registry import OPS

# Before TRITON_INTERPRET is set: decorated under it, kernels could not be compiled in this process any more.
for _name in OPS:
    importlib.import_module(f"prism_kernels._triton.{_name}")


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Operators take Triton's kernels, on CPU tensors."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with prism_kernels.use_backend("triton"):
        yield


@pytest.fixture(params=["reference", "triton"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same test for plain torch and for the kernels in the interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with prism_kernels.use_backend(request.param):
        yield request.param
