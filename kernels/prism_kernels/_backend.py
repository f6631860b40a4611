"""Which implementation runs: plain torch or Triton; and, when Triton cannot, every reason."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from prism_kernels import _reference
from prism_kernels._errors import KernelBackendError, KernelInputError
from prism_kernels._registry import OPS

Backend = Literal["auto", "reference", "triton"]

# Looked up once: torch.compile cannot trace a search of the import path.
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_MISSING = "triton is not installed; pip install triton"
# One setting for the process, not a context variable: torch.compile guards on a global and traces through it.
_active: Backend = "auto"


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Choose the implementation inside a ``with`` block, for the whole process.

    ``auto`` (the default) takes Triton for CUDA tensors that it accepts and plain torch otherwise; ``triton`` raises
    where Triton cannot run; ``reference`` never leaves plain torch, as tracing and export need.

    Raises:
        KernelInputError: no such backend.
    """
    global _active
    if backend not in ("auto", "reference", "triton"):
        raise KernelInputError(f"use_backend: got {backend!r}, expected 'auto', 'reference' or 'triton'; name one")
    before, _active = _active, backend
    try:
        yield
    finally:
        _active = before


def interpreting() -> bool:
    """Whether Triton's kernels run on CPU tensors, in its interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def reasons(op: str, *inputs: torch.Tensor | None) -> list[str]:
    """Why Triton cannot run ``op`` on these inputs, or without any on this machine's GPU; empty when it can.

    Raises:
        KernelInputError: no such operator.
    """
    if op not in OPS:
        raise KernelInputError(f"reasons: got operator {op!r}, expected one of {', '.join(sorted(OPS))}; name one")
    given = [t for t in inputs if t is not None]
    found = [] if _HAS_TRITON else [_MISSING]
    found += _device_reasons(op, given)
    for dtype in {t.dtype for t in given if t.is_floating_point()} - set(OPS[op].dtypes):
        found.append(f"dtype {dtype} is not supported; convert to float32, float16 or bfloat16")
    if not OPS[op].differentiable and torch.is_grad_enabled() and any(t.requires_grad for t in given):
        found.append("an input requires a gradient and the kernel has no backward; detach it or use torch.no_grad()")
    return found


def _device_reasons(op: str, inputs: list[torch.Tensor]) -> list[str]:
    devices = sorted({str(t.device) for t in inputs})
    if len(devices) > 1:
        return [f"inputs lie on {' and '.join(devices)}; move them to one device"]
    kind = inputs[0].device.type if inputs else "cuda" if torch.cuda.is_available() else "cpu"
    if inputs and kind == "cpu" and interpreting():
        return []
    if kind != "cuda":
        where = f"inputs lie on {kind}; move them to a CUDA device" if inputs else "no CUDA device; use one"
        return [f"{where}, or set TRITON_INTERPRET=1 to test on the CPU"]
    least = OPS[op].min_capability
    # A fake CUDA tensor may exist on a machine without a GPU: tracing must not ask a driver that is not there.
    if torch.cuda.is_available() and torch.cuda.get_device_capability(inputs[0].device if inputs else None) < least:
        return [f"the GPU is older than compute capability {least[0]}.{least[1]}; use the reference backend"]
    return []


def interpreter_reasons() -> list[str]:
    """Why Triton's interpreter cannot run our kernels on CPU tensors here; empty when it can: one was run."""
    if not _HAS_TRITON:
        return [_MISSING]
    inputs = torch.tensor([[0.0, 1.0]]), torch.tensor([1]), -1.0, 1.0, 1.0
    try:
        from prism_kernels._triton.energy import launch

        right = torch.allclose(launch(*inputs)[0], _reference.energy(*inputs)[0])
    except Exception as error:  # Triton's interpreter raises what it likes
        first = (str(error).strip().splitlines() or [""])[0]
        return [f"triton's interpreter does not run ({type(error).__name__}: {first}); reinstall torch and its triton"]
    return [] if right else ["triton's interpreter computes a wrong energy; reinstall torch and its triton"]


def takes_triton(op: str, *inputs: torch.Tensor | None) -> bool:
    """Whether the call goes to Triton.

    Raises:
        KernelBackendError: Triton was asked for by name and cannot take these inputs.
    """
    if _active == "reference":
        return False
    if _active == "auto" and any(t is not None and t.device.type != "cuda" for t in inputs):
        return False
    found = reasons(op, *inputs)
    if found and _active == "triton":
        shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in inputs if t is not None)
        raise KernelBackendError(f"{op}: triton cannot take {shapes}: {'; '.join(found)}")
    return not found


def explain() -> str:
    """One line an operator: what it computes, and what runs it on this machine."""
    lines = [f"backend: {_active}"]
    interpreted = (torch.empty(0),) if _active == "triton" and interpreting() else ()
    for name, spec in sorted(OPS.items()):
        found = reasons(name, *interpreted)
        lines.append(f"{name}: {spec.formula}; {'reference: ' + '; '.join(found) if found else 'triton'}")
    return "\n".join(lines)
