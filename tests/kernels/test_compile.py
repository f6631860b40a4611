"""Offline compilation: no spills, 128-bit accesses, no byte moved twice; and the tools that measure it."""

from __future__ import annotations

import os

import pytest
import torch
from prism_kernels import KernelBackendError, KernelInputError
from prism_kernels.compile import check, compile_kernels, measure, widths
from prism_kernels.testing import examples

from tests.kernels.cases import DTYPES

needs_compiler = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter is on")


@needs_compiler
@pytest.mark.parametrize("op", ["energy", "guided_combine", "guided_step"])
def test_kernels_meet_the_bars(op: str) -> None:
    """One architecture and dtype each, the command checks them all."""
    for dtype, arch in ((torch.float16, 80), (torch.float32, 90)):
        for report in compile_kernels((op,), (dtype,), (arch,)):
            assert not check(report), report
            assert 0 < report.registers <= 128


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_example_moves_each_byte_once(dtype: torch.dtype) -> None:
    for example in examples(dtype):
        _, moved, least = measure(example)
        assert 0.9 * least < moved <= 1.1 * least, (example.op, example.shape, moved, least)


def test_widths_are_read_from_ptx() -> None:
    ptx = """
        @%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
        ld.global.b64 { %rd2 }, [ %rd3 + 0 ];
        ld.global.L1::evict_last.v2.b64 { %rd2, %rd4 }, [ %rd3 + 0 ];
        ld.shared.v4.b32 { %r1, %r2, %r3, %r4 }, [ %r9 ];
        st.global.b16 [ %rd5 + 0 ], { %rs1 };
    """
    assert widths(ptx) == ({128: 2, 64: 1}, {16: 1})


def test_what_cannot_be_compiled_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelInputError, match="softmax"):
        compile_kernels(("softmax",))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(KernelBackendError, match="unset it"):
        compile_kernels()
