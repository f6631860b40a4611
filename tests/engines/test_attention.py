"""Attention of diffusers UNets: the names, the switch, and the reasons against xformers."""

from __future__ import annotations

import sys

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from prism_engines.attention import attention_reasons, use_attention
from prism_engines.errors import EngineInputError
from torch import nn

from tests import tiny


def test_sdpa_computes_what_plain_attention_computes() -> None:
    torch.manual_seed(0)
    unet = tiny.unet().eval()
    unet.set_attn_processor(AttnProcessor())
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([1, 900]), torch.randn(2, 5, 16)
    with torch.no_grad():
        plain = unet(*inputs).sample
        use_attention(unet, "sdpa")
        fused = unet(*inputs).sample
    assert {type(one) for one in unet.attn_processors.values()} == {AttnProcessor2_0}
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


def test_sdpa_always_runs() -> None:
    assert attention_reasons("sdpa") == []


def test_xformers_without_its_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xformers", None)
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    assert any("xformers" in reason and "pip install" in reason for reason in attention_reasons("xformers"))
    with pytest.raises(EngineInputError, match="attention xformers cannot run here: ") as caught:
        use_attention(nn.Identity(), "xformers")
    assert "\n" not in str(caught.value)


def test_xformers_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert any("torch sees no CUDA GPU" in reason for reason in attention_reasons("xformers"))


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(EngineInputError, match="attention 'flash' is unknown, expected one of: sdpa, xformers"):
        use_attention(nn.Identity(), "flash")


def test_a_module_without_attention_is_refused() -> None:
    with pytest.raises(EngineInputError, match="Identity has no attention to switch, expected a diffusers UNet"):
        use_attention(nn.Identity(), "sdpa")
