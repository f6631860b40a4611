"""Start a kernel: on the GPU, or in Triton's interpreter, and tell whoever records launches.

The interpreter is entered by us and not by decorating under ``TRITON_INTERPRET``: Triton reads that variable when a
function is decorated, its own library included, so a process that imported Triton before would get half of each. As a
consequence one process can both interpret a kernel and compile it.

Only this file reaches into Triton's interpreter: a new Triton that breaks it is mended here.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl


@dataclass(frozen=True)
class Launch:
    """One kernel start: its arguments by name, constants included."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int


_recorders: list[Callable[[Launch], None]] = []


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Collect the launches made inside the block; they run as well."""
    seen: list[Launch] = []
    _recorders.append(seen.append)
    try:
        yield seen
    finally:
        _recorders.remove(seen.append)


@contextmanager
def counting(launches: list[Launch]) -> Iterator[tuple[Counter[int], Counter[int]]]:
    """Add up the bytes of unmasked elements that interpreted kernels load and store, by the number of launches."""
    from triton.runtime.interpreter import interpreter_builder as builder

    loaded, stored = Counter[int](), Counter[int]()
    load, store = builder.create_masked_load, builder.create_masked_store

    def count(pointers: Any, mask: Any) -> int:
        bits: int = pointers.get_element_ty().primitive_bitwidth
        return int(mask.data.sum()) * max(8, bits) // 8

    def counted_load(ptrs: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        loaded[len(launches)] += count(ptrs, mask)
        return load(ptrs, mask, *rest, **named)

    def counted_store(ptrs: Any, data: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        stored[len(launches)] += count(ptrs, mask)
        return store(ptrs, data, mask, *rest, **named)

    builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
    try:
        yield loaded, stored
    finally:
        del builder.create_masked_load, builder.create_masked_store


def run(kernel: Any, grid: tuple[int, ...], num_warps: int, **arguments: Any) -> None:
    """Start ``kernel``; CPU tensors go to the interpreter."""
    launch = Launch(kernel, grid, arguments, num_warps)
    for record in _recorders:
        record(launch)
    device = next(a.device for a in arguments.values() if isinstance(a, torch.Tensor))
    if device.type == "cpu":
        _interpret(launch)
        return
    with torch.cuda.device(device):  # Triton starts kernels on the thread's current GPU, wherever their tensors lie
        kernel[grid](**arguments, num_warps=num_warps)


def _sum(x: Any, axis: int | None = None) -> Any:
    return tl.reduce(x, axis, tl.standard._sum_combine)


def _max(x: Any, axis: int | None = None) -> Any:
    return tl.reduce(x, axis, tl.standard._elementwise_max)


def _interpret(launch: Launch) -> None:
    from triton.runtime.interpreter import InterpretedFunction

    before = tl.sum, tl.max
    # Functions of Triton's library cannot be called from an interpreted kernel unless they were decorated for it.
    tl.sum, tl.max = _sum, _max
    try:
        with _interpreted_helpers(launch.kernel.fn), _rounding(), np.errstate(all="ignore"), warnings.catch_warnings():
            # A GPU does not warn about NaN, nor should its simulation.
            warnings.simplefilter("ignore", RuntimeWarning)
            InterpretedFunction(launch.kernel.fn)[launch.grid](**launch.arguments)
    finally:
        tl.sum, tl.max = before


@contextmanager
def _rounding() -> Iterator[None]:
    """Round float32 to bfloat16 to nearest, as a GPU does; the interpreter of Triton 3.8 cuts: twice the error."""
    from triton.runtime.interpreter import TensorHandle
    from triton.runtime.interpreter import interpreter_builder as builder

    plain = builder.create_fp_trunc

    def rounded(source: Any, target: Any) -> Any:
        if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
            return plain(source, target)
        values = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
        return TensorHandle(values.view(torch.uint16).numpy(), target.scalar)

    builder.create_fp_trunc = rounded
    try:
        yield
    finally:
        del builder.create_fp_trunc


@contextmanager
def _interpreted_helpers(function: Any) -> Iterator[None]:
    """Replace the jitted functions of ours that a kernel calls, and those that they call, while it is interpreted."""
    from triton.runtime.interpreter import InterpretedFunction

    replaced: list[tuple[dict[str, Any], str, Any]] = []
    pending = [function]
    try:
        while pending:
            current = pending.pop()
            for name in current.__code__.co_names:
                helper = current.__globals__.get(name)
                if isinstance(helper, triton.JITFunction):
                    replaced.append((current.__globals__, name, helper))
                    current.__globals__[name] = InterpretedFunction(helper.fn).rewrite()
                    pending.append(helper.fn)
        yield
    finally:
        for names, name, helper in reversed(replaced):
            names[name] = helper


def vector(dtypes: tuple[torch.dtype, ...], *sizes: int) -> int:
    """Elements that one 128-bit access of the narrowest dtype moves, if every offset in ``sizes`` is a multiple."""
    width = 16 // min(dtype.itemsize for dtype in dtypes)
    while any(size % width for size in sizes):
        width //= 2
    return width


def warps(elements: int, each: int, most: int = 16) -> int:
    """Warps (a power of two, 1 to ``most``) that give every thread about ``each`` of a block's elements."""
    return int(min(most, max(1, triton.next_power_of_2(elements) // (32 * each))))
