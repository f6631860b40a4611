"""Memory that runs out is one error, whichever library says so and however."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from prism_engines.memory import is_out_of_memory

from prism_fast.config import RunConfig
from prism_fast.dataset.plan import build_plan
from prism_fast.errors import RunError
from prism_fast.synthesis.memory import enough_memory
from prism_fast.synthesis.synthesizer import Synthesizer

SAID = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[executionContext.cpp] Error Code 2: OutOfMemory (Requested size was 26214400 bytes.)"),
    RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1024"),
)


@pytest.mark.parametrize("error", SAID, ids=lambda error: str(error)[:24] or "MemoryError")
def test_every_librarys_words_are_known(error: Exception) -> None:
    said = "^out of memory; choose a smaller sampling.batch_size, engines.gradient_batch or engines.decoder_batch$"
    with pytest.raises(RunError, match=said) as caught, enough_memory():
        raise error
    assert caught.value.__cause__ is error
    assert is_out_of_memory(caught.value)


def test_another_error_comes_through() -> None:
    with pytest.raises(ValueError, match="no such thing"), enough_memory():
        raise ValueError("no such thing")


class Full:
    """An engine without memory."""

    name = "full"

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("part", ["unet", "energy_gradient", "decoder", "teacher", "text_encoder"])
def test_a_run_that_runs_out_says_what_to_make_smaller(config: RunConfig, part: str) -> None:
    run, full = Synthesizer.load(config), {part: cast(Any, Full())}
    run = run.with_engines(replace(run.engines, **full))
    with pytest.raises(RunError, match="choose a smaller"):
        run.make(build_plan(config, 2))
