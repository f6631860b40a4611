"""Which precision is tried first, by part and device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prism_fast.compile.build import preferred
from tests.engines import tiny

PARTS = ("text_encoder", "unet", "unet_deep", "unet_shallow", "decoder", "energy_gradient", "teacher")


@pytest.mark.parametrize("part", PARTS)
def test_the_cpus_order_is_the_same_for_every_part(part: str) -> None:
    assert preferred(replace(tiny.spec(), part=part)) == ("bf16", "fp16", "fp32")


@pytest.mark.parametrize("part", PARTS)
def test_on_a_gpu_what_deals_in_pixels_begins_with_fp16(part: str) -> None:
    first, second, last = preferred(replace(tiny.spec(), part=part, device="cuda:1"))
    assert (first, second) == (("fp16", "bf16") if part in ("decoder", "teacher") else ("bf16", "fp16"))
    assert last == "fp32"
