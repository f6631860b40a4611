"""Offline compilation: no spills, 128-bit accesses, no byte moved twice; and the tools that measure it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from prism_kernels import KernelBackendError, KernelInputError
from prism_kernels._registry import OPS
from prism_kernels._triton import _run
from prism_kernels._triton import counter_noise as _noise
from prism_kernels._triton import group_norm_silu as _norm
from prism_kernels._triton import guided_step as _step
from prism_kernels._triton import view as _view
from prism_kernels.compile import KernelReport, _source, check, compile_kernels, measure, widths
from prism_kernels.testing import examples

from tests.kernels.cases import DTYPES

needs_compiler = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter is on")


# Two small products a tile, by tensor cores in three parts for float32's precision: one block of 8 warps a processor.
REGISTERS = {"view": 255}


@needs_compiler
@pytest.mark.parametrize("op", sorted(OPS))
def test_kernels_meet_the_bars(op: str) -> None:
    """One architecture and dtype each, small examples; the command checks them all."""
    for dtype, arch in ((torch.float16, 80), (torch.float32, 90)):
        for report in compile_kernels((op,), (dtype,), (arch,), large=False):
            assert not check(report), report
            assert 0 < report.registers <= REGISTERS.get(op, 128)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_example_moves_each_byte_once(dtype: torch.dtype) -> None:
    for example in examples(dtype, large=False):
        traffic = measure(example)
        assert 0.9 * traffic.least < traffic.moved <= 1.1 * traffic.least, (example.op, example.shape, traffic)


@pytest.mark.slow
def test_large_examples_keep_their_bars() -> None:
    """Above 1.1 only where a group does not fit a tile, and then no more than reading it twice takes."""
    seen = {(e.op, e.shape) for e in examples(torch.float16, large=False)}
    for example in examples(torch.float16):
        if (example.op, example.shape) not in seen:
            traffic = measure(example)
            assert 0.9 * traffic.least < traffic.moved <= example.bytes_bar * traffic.least, (example.shape, traffic)
            assert example.bytes_bar == 1.1 or (example.op == "group_norm_silu" and example.bytes_bar < 1.84)


@needs_compiler
def test_sizes_of_one_compile_too() -> None:
    """Triton makes a constant of every integer argument that is one, and a constant has no methods of a tensor."""
    import triton
    from triton.backends.compiler import GPUTarget

    one, flag = torch.ones(1, 1, 1, 1), torch.ones(1, dtype=torch.bool)
    with _run.recording() as launches:
        _view.launch(one, torch.tensor([[0.0, 1, 0, 1, 0]]), 1, one.view(1), one.view(1))
        _norm.launch_backward(one, one, one.view(1), one.view(1), one.view(1, 1), one.view(1, 1), 1)
        _norm.launch(torch.ones(1, 1, 1, 20000), one.view(1), one.view(1), 1, 1e-6)
        _noise.launch(1, torch.tensor([1]), 1, 1, torch.float32)
        weights = (1.0, 1.0, 0.0)
        _step.launch(one, one, one.view(1), flag, 0.1, 1e4, one, None, weights, torch.tensor([1]), 1, 1, 0.5)
    assert len(launches) == 7
    for launch in launches:
        options = {"num_warps": launch.num_warps}
        triton.compile(_source(launch), target=GPUTarget("cuda", 90, 32), options=options)


def test_a_missed_bar_says_by_how_much() -> None:
    fine: dict[str, Any] = {"op": "energy", "shape": "", "dtype": "", "arch": "", "registers": 9, "shared_bytes": 0}
    widths: dict[str, Any] = {"load_bits": 128, "store_bits": 32, "load_widths": {}, "store_widths": {}}
    report = KernelReport(**fine, **widths, spills=8, loaded=60, stored=60, bytes=120, bytes_min=100, bytes_bar=1.1)
    assert check(report) == [
        "8 bytes of spills",
        "store_bits is 32, not 128",
        "moves 1.20 times the bytes that it must",
    ]
    assert check(replace(report, spills=0, stored=1, bytes_bar=1.3)) == []


def test_widths_are_read_from_ptx() -> None:
    ptx = """
        @%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
        ld.global.b64 { %rd2 }, [ %rd3 + 0 ];
        ld.global.L1::evict_last.v2.b64 { %rd2, %rd4 }, [ %rd3 + 0 ];
        ld.shared.v4.b32 { %r1, %r2, %r3, %r4 }, [ %r9 ];
        st.global.b16 [ %rd5 + 0 ], { %rs1 };
        @%p2 cp.async.cg.shared.global [ %r2 + 0 ], [ %rd6 + 0 ], 0x10, %r3;
    """
    assert widths(ptx) == ({128: 3, 64: 1}, {16: 1})


def test_what_cannot_be_compiled_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelInputError, match="softmax"):
        compile_kernels(("softmax",))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(KernelBackendError, match="unset it"):
        compile_kernels()
