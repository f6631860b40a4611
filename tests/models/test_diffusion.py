"""A diffusers directory: what loads, and one clear line for what does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prism_engines.backends.eager import EagerEngine

from prism_fast.errors import DataError
from prism_fast.models.diffusion import LatentDecoder, load_diffusion
from prism_fast.models.text import TextHidden, encode_prompts
from tests.damage import add_tensor, drop_tensor, edit, make_pipe, quantise
from tests.tiny import make_diffusion

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_diffusion(tmp_path_factory.mktemp("models") / "good")


def _edit(file: str, **changes: object) -> Callable[[Path], None]:
    return lambda path: edit(path / file, **changes)


def _write(file: str, data: bytes) -> Callable[[Path], object]:
    return lambda path: (path / file).write_bytes(data)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (shutil.rmtree, "does not exist"),
    "no index": (lambda p: (p / "model_index.json").unlink(), "no model_index.json"),
    "index is not JSON": (_write("model_index.json", b"{"), "model_index.json is not JSON"),
    "index is not text": (_write("model_index.json", b"\xff\xfe"), "model_index.json is not JSON"),
    "index is a list": (_write("model_index.json", b"[]"), "model_index.json holds no JSON object"),
    "index is null": (_write("model_index.json", b"null"), "model_index.json holds no JSON object"),
    "index is nested without end": (_write("model_index.json", b"[" * 100_000), "model_index.json is not JSON"),
    "scheduler is nested without end": (_write(SCHEDULER, b"[" * 100_000), "scheduler_config.json is not JSON"),
    "scheduler is null": (_write(SCHEDULER, b"null"), "scheduler_config.json holds no JSON object"),
    "scheduler is a pipe": (lambda p: make_pipe(p / SCHEDULER), "scheduler_config.json cannot be read: it is a pipe"),
    "no scheduler config": (lambda p: (p / SCHEDULER).unlink(), "scheduler cannot be loaded: it holds no scheduler_c"),
    "no text config": (lambda p: (p / "text_encoder/config.json").unlink(), "text_encoder .*: it holds no config.json"),
    "unet weights are a pipe": (lambda p: make_pipe(p / UNET), "unet .*: it holds no diffusion_pytorch_model"),
    "unet config is a pipe": (lambda p: make_pipe(p / "unet/config.json"), "unet .*: it holds no config.json"),
    "index entry is null": (_edit("model_index.json", vae=None), r"vae is None.*\[library, class\]"),
    "unknown class": (_edit("model_index.json", unet=["diffusers", "NoNet"]), r"diffusers\.NoNet"),
    "unknown library": (_edit("model_index.json", unet=["elsewhere", "UNet"]), r"elsewhere\.UNet"),
    "no vae": (lambda p: shutil.rmtree(p / "vae"), "lacks vae"),
    "no tokenizer": (lambda p: shutil.rmtree(p / "tokenizer"), "lacks tokenizer"),
    "no unet weights": (lambda p: (p / UNET).unlink(), "unet cannot be loaded"),
    "no unet config": (lambda p: (p / "unet/config.json").unlink(), "unet cannot be loaded"),
    "unet config is not JSON": (_write("unet/config.json", b"{"), "unet cannot be loaded"),
    "corrupt unet": (_write(UNET, b"garbage!" * 9), "unet cannot be loaded"),
    "corrupt vae": (_write(VAE, b"garbage!" * 9), "vae cannot be loaded"),
    "corrupt text encoder": (_write(TEXT, b"garbage!" * 9), "text_encoder cannot be loaded"),
    "truncated unet": (lambda p: _write(UNET, (p / UNET).read_bytes()[:-1000])(p), "unet cannot be loaded"),
    "a unet tensor is missing": (lambda p: drop_tensor(p / UNET), "unet: its weights lack 1"),
    "a vae tensor is missing": (lambda p: drop_tensor(p / VAE), "vae: its weights lack 1"),
    "a text tensor is missing": (lambda p: drop_tensor(p / TEXT), "text_encoder: its weights lack 1"),
    "unet config and weights differ": (
        _edit("unet/config.json", block_out_channels=[8, 24]),
        "unet cannot be loaded: Error.* in loading state_dict for UNet2DConditionModel: size mismatch",
    ),
    "a unet tensor is unknown": (lambda p: add_tensor(p / UNET), "unet: its weights hold 1 .* the first is surprise"),
    "a vae tensor is unknown": (lambda p: add_tensor(p / VAE), "vae: its weights hold 1 .* the first is surprise"),
    "quantised unet": (lambda p: quantise(p / UNET), "is of I8; quantised weights are not supported"),
    "quantised vae": (lambda p: quantise(p / VAE), "is of I8; quantised weights are not supported"),
    "quantised text encoder": (lambda p: quantise(p / TEXT), "is of I8; quantised weights are not supported"),
    "unsupported prediction": (_edit("scheduler/scheduler_config.json", prediction_type="sample"), "'sample'.*epsilon"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_is_one_clear_line(good: Path, tmp_path: Path, case: str) -> None:
    path = shutil.copytree(good, tmp_path / "model")
    spoil, words = BROKEN[case]
    spoil(path)
    with pytest.raises(DataError, match=words) as caught:
        load_diffusion(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_wrong_channel_count_names_both(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes 8 channels but the autoencoder gives 4"):
        load_diffusion(make_diffusion(tmp_path / "wide", unet_channels=8))


def test_a_good_directory(good: Path) -> None:
    model = load_diffusion(good)
    assert (model.prediction_type, model.latent_channels, model.vae_factor) == ("epsilon", 4, 2)
    assert model.path == good
    for net in (model.unet, model.vae, model.text_encoder):
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())
    images = LatentDecoder(model)(torch.zeros(2, 4, 8, 8))
    assert images.shape == (2, 3, 16, 16)


def test_dtype_and_prediction_are_followed(tmp_path: Path) -> None:
    model = load_diffusion(make_diffusion(tmp_path / "v", prediction="v_prediction"), dtype=torch.bfloat16)
    assert model.prediction_type == "v_prediction"
    for net in (model.unet, model.vae, model.text_encoder):
        assert {p.dtype for p in net.parameters()} == {torch.bfloat16}


def test_embeddings_do_not_depend_on_the_batch(good: Path) -> None:
    model = load_diffusion(good)
    prompts = ["a noto style emoji of cat", "a blue style emoji of dog", "a " * 40, ""]
    encoders = [(model.tokenizer, EagerEngine(TextHidden(model.text_encoder), "text_encoder"))]
    together = encode_prompts(prompts, encoders).text
    assert together.shape == (4, 8, 16)
    in_parts = encode_prompts(prompts, encoders, batch_size=3).text
    torch.testing.assert_close(in_parts, together, rtol=0, atol=1e-5)
    assert not torch.allclose(together[0], together[1])
