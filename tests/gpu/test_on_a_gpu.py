"""What only a GPU can show: that what was faked and mocked elsewhere holds."""

from __future__ import annotations

import pytest
import torch

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.plan import build_plan
from prism_fast.sampling.transfer import to_device, to_host
from prism_fast.synthesis.synthesizer import Synthesizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")]


def test_what_is_copied_there_and_back_is_the_same() -> None:
    given = [torch.randn(3, 4), torch.arange(7), torch.tensor([True, False]), torch.arange(5, dtype=torch.uint8)]
    there = to_device(given, torch.device("cuda"))
    assert {x.device.type for x in there} == {"cuda"}
    assert all(torch.equal(a, b) for a, b in zip(to_host(there), given, strict=True))


@pytest.mark.parametrize("mode", ["denoised", "latent"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_run_is_nearly_that_of_the_cpu(config: RunConfig, dtype: str, mode: str) -> None:
    rows, changes = build_plan(config, 4), {"guidance.mode": mode}
    wanted = Synthesizer.load(assign(config, changes)).make(rows).samples
    changes |= {"sampling.device": "cuda", "sampling.dtype": dtype}
    found = Synthesizer.load(assign(config, changes)).make(rows).samples
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.image.device.type == a.logits.device.type == "cpu"
        assert (a.image.float() - b.image.float()).abs().mean() < 4


def test_denoising_waits_for_nothing(config: RunConfig) -> None:
    """torch itself says where the host waits."""
    run, rows = Synthesizer.load(assign(config, {"sampling.device": "cuda"})), build_plan(config, 4)
    run.make(rows)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.denoise(rows)
    finally:
        torch.cuda.set_sync_debug_mode(before)
