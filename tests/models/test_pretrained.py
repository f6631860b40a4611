"""Pretrained weights by timm name where there is no network: from the cache, or refused at once."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from prism_fast.errors import InputError
from prism_fast.models.classifier import load_classifier
from prism_fast.models.pretrained import reachable


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and a hub cache of its own."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_without_a_network_the_refusal_comes_at_once(offline: Path) -> None:
    before = time.monotonic()
    with pytest.raises(InputError, match=r"'test_resnet' are not in the cache, and there is no network") as caught:
        load_classifier("test_resnet")
    assert time.monotonic() - before < 5
    assert "\n" not in str(caught.value)


def test_what_is_in_the_cache_needs_no_network(offline: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_resnet")
    repository = timm.get_pretrained_cfg("test_resnet").hf_hub_id
    folder = offline / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
    loaded = load_classifier("test_resnet")
    assert torch.equal(loaded.net.get_parameter("fc.weight"), net.get_parameter("fc.weight"))
    assert loaded.config.num_classes == 1000


def test_a_name_without_pretrained_weights_says_so() -> None:
    name = next(n for n in timm.list_models() if not timm.is_model_pretrained(n) and not timm.get_pretrained_cfg(n).url)
    with pytest.raises(InputError, match=f"timm has no pretrained weights of '{name}'"):
        load_classifier(name)


def test_an_unknown_tag_is_one_line() -> None:
    with pytest.raises(InputError, match=r"'test_resnet\.nowhere'") as caught:
        load_classifier("test_resnet.nowhere")
    assert "\n" not in str(caught.value)


def test_a_closed_port_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert not reachable(url)
        listening.listen()
        assert reachable(url)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert reachable("http://127.0.0.1:9")
