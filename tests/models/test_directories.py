"""Diffusers directories as people have them: hub snapshots, variants, shards, pickles, and settings of all kinds."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from prism_fast.errors import DataError, InputError
from prism_fast.models.bundled import resolve
from prism_fast.models.diffusion import LatentDecoder, load_diffusion, outline_diffusion
from tests.damage import edit
from tests.tiny import make_diffusion, unet, use_autoencoder_kl

UNET, TEXT = "unet/diffusion_pytorch_model", "text_encoder/model"
SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_diffusion(tmp_path_factory.mktemp("models") / "good")


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def _weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(net.state_dict())


def _same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = _weights(first), _weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def _refused(path: Path, words: str) -> str:
    with pytest.raises(DataError, match=words) as caught:
        load_diffusion(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_snapshot_of_links_is_loaded(good: Path, model: Path, tmp_path: Path) -> None:
    (model / "unet").rename(tmp_path / "unet")
    (model / "unet").symlink_to(tmp_path / "unet", target_is_directory=True)
    (model / f"{TEXT}.safetensors").rename(tmp_path / "blob")
    (model / f"{TEXT}.safetensors").symlink_to(tmp_path / "blob")
    assert _same(load_diffusion(model).unet, load_diffusion(good).unet)


@pytest.mark.parametrize("stem", [UNET, TEXT])
@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_variant_is_taken_where_there_is_nothing_else(good: Path, model: Path, stem: str, variant: str) -> None:
    (model / f"{stem}.safetensors").rename(model / f"{stem}.{variant}.safetensors")
    loaded, plain = load_diffusion(model), load_diffusion(good)
    assert _same(loaded.unet, plain.unet)
    assert _same(loaded.text_encoder, plain.text_encoder)


def test_plain_weights_are_preferred_and_fp16_to_other_variants(good: Path, model: Path) -> None:
    shutil.copy(model / f"{UNET}.safetensors", model / f"{UNET}.fp16.safetensors")
    (model / f"{UNET}.non_ema.safetensors").write_bytes(b"never read")
    load_diffusion(model)
    (model / f"{UNET}.safetensors").unlink()
    assert _same(load_diffusion(model).unet, load_diffusion(good).unet)
    (model / f"{UNET}.fp16.safetensors").rename(model / f"{UNET}.ema.safetensors")
    _refused(model, "variants ema, non_ema; call the wanted one diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_loaded(good: Path, model: Path, variant: str | None) -> None:
    plain = load_diffusion(good)
    for part, net in (("unet", plain.unet), ("text_encoder", plain.text_encoder)):
        for file in (model / part).glob("*.safetensors"):
            file.unlink()
        saved: Any = net
        saved.save_pretrained(model / part, max_shard_size="4KB", variant=variant)
        assert len(list((model / part).glob("*.safetensors"))) > 1
    loaded = load_diffusion(model)
    assert _same(loaded.unet, plain.unet)
    assert _same(loaded.text_encoder, plain.text_encoder)


@pytest.mark.parametrize(("stem", "pickle"), [(UNET, UNET), (TEXT, "text_encoder/pytorch_model")])
@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(
    good: Path, model: Path, stem: str, pickle: str, variant: str
) -> None:
    state = load_file(model / f"{stem}.safetensors")
    torch.save(state, model / f"{pickle}{variant}.bin")
    (model / f"{stem}.safetensors").unlink()
    line = _refused(model, "which can run code")
    python, option, program = shlex.split(line.partition("once with: ")[2])
    assert (python, option) == ("python", "-c")
    exec(program, {})
    loaded, plain = load_diffusion(model), load_diffusion(good)
    assert _same(loaded.unet, plain.unet)
    assert _same(loaded.text_encoder, plain.text_encoder)


def test_a_pointer_of_git_lfs_is_named(model: Path) -> None:
    (model / f"{UNET}.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    _refused(model, "git lfs pull")


def test_home_is_expanded(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(good.parent))
    assert load_diffusion(Path("~/good")).path == good
    assert outline_diffusion(Path("~/good")).path == good
    assert resolve("~/good", "diffusion") == str(good)


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_current_directory(name: str) -> None:
    for part in ("diffusion", "teacher", "light_decoder"):
        with pytest.raises(InputError, match=rf"models\.{part} names nothing"):
            resolve(name, part)


@pytest.mark.parametrize(
    "name",
    [
        "EDMEulerScheduler",
        "EDMDPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "CMStochasticIterativeScheduler",
        "LCMScheduler",
        "TCDScheduler",
        "ScoreSdeVeScheduler",
    ],
)
@pytest.mark.parametrize("where", ["index", "config"])
def test_another_kind_of_noise_is_refused_by_name(model: Path, name: str, where: str) -> None:
    if where == "index":
        edit(model / "model_index.json", scheduler=["diffusers", name])
    else:
        edit(model / SCHEDULER, _class_name=name)
    _refused(model, f"scheduler is a {name}")


@pytest.mark.filterwarnings("ignore:.*__array_:DeprecationWarning")  # diffusers, of numpy
@pytest.mark.parametrize(
    "name",
    [
        "DDPMScheduler",
        "PNDMScheduler",
        "LMSDiscreteScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_schedulers_whose_betas_are_honoured_are_loaded(model: Path, name: str) -> None:
    shutil.rmtree(model / "scheduler")
    getattr(diffusers, name)(beta_schedule="scaled_linear").save_pretrained(model / "scheduler")
    edit(model / SCHEDULER, clip_sample=False)
    edit(model / "model_index.json", scheduler=["diffusers", name])
    assert type(load_diffusion(model).scheduler).__name__ == name


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("DDIMScheduler", "clip_sample", True),
        ("DDIMScheduler", "thresholding", True),
        ("DDIMScheduler", "timestep_spacing", "cubic"),
        ("EulerDiscreteScheduler", "use_karras_sigmas", True),
        ("EulerDiscreteScheduler", "use_exponential_sigmas", True),
        ("EulerDiscreteScheduler", "interpolation_type", "log_linear"),
        ("EulerDiscreteScheduler", "timestep_type", "continuous"),
        ("EulerDiscreteScheduler", "sigma_max", 80.0),
        ("DPMSolverMultistepScheduler", "use_lu_lambdas", True),
        ("DPMSolverMultistepScheduler", "lambda_min_clipped", -5.1),
        ("UniPCMultistepScheduler", "use_flow_sigmas", True),
    ],
)
def test_a_setting_that_is_not_followed_is_refused_by_name(model: Path, name: str, key: str, value: object) -> None:
    edit(model / SCHEDULER, _class_name=name, **{key: value})
    edit(model / "model_index.json", scheduler=["diffusers", name])
    _refused(model, rf"{key} = {value!r}, which is not followed")


@pytest.mark.parametrize("levels", [0, -1, True, 1.5, "1000", None, 10**9, float("nan")])
def test_a_number_of_noise_levels_that_is_none_is_refused_before_they_are_made(model: Path, levels: object) -> None:
    """A thousand million of them took for ever, and none at all was answered with "choose at most 0"."""
    edit(model / SCHEDULER, num_train_timesteps=levels)
    _refused(model, rf"num_train_timesteps = {levels!r}; expected a whole number from 1 to 100000")


def test_a_library_that_begins_its_words_with_an_empty_line_is_heard(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As diffusers does of what is not installed: DPMSolverSDEScheduler "cannot be loaded:", and no word more."""

    def broken(*_: object, **__: object) -> None:
        raise ImportError("\n  It needs the torchsde library\nInstall it")

    monkeypatch.setattr(diffusers.DDIMScheduler, "from_pretrained", broken)
    assert _refused(model, "scheduler cannot be loaded").endswith(": It needs the torchsde library")


def test_a_leftover_that_its_class_does_not_know_is_no_setting(model: Path) -> None:
    edit(model / SCHEDULER, use_karras_sigmas=True)
    assert load_diffusion(model).prediction_type == "epsilon"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"beta_schedule": "laplace"}, "beta_schedule = 'laplace'"),
        ({"prediction_type": None}, "predicts None"),
        ({"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'"),
    ],
)
def test_other_betas_and_predictions_are_refused(model: Path, changes: dict[str, Any], words: str) -> None:
    edit(model / SCHEDULER, _class_name="DDPMScheduler", **changes)
    edit(model / "model_index.json", scheduler=["diffusers", "DDPMScheduler"])
    _refused(model, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"out_channels": 8}, "predicts 8 channels for 4; a learned variance"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim = 8"),
        ({"num_class_embeds": 3}, "num_class_embeds = 3"),
        ({"addition_embed_type": "text"}, "addition_embed_type = 'text'"),
    ],
)
def test_a_unet_of_another_kind_is_refused(model: Path, changes: dict[str, Any], words: str) -> None:
    unet(**changes).save_pretrained(model / "unet")
    _refused(model, words)


def test_latent_statistics_are_honoured_as_in_diffusers(model: Path) -> None:
    mean, std = [0.1, -0.2, 0.3, 0.4], [1.0, 2.0, 0.5, 1.5]
    use_autoencoder_kl(model, latents_mean=mean, latents_std=std, scaling_factor=0.5)
    loaded = load_diffusion(model)
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    vae: Any = loaded.vae
    by_hand = z * torch.tensor(std).view(1, 4, 1, 1) / 0.5 + torch.tensor(mean).view(1, 4, 1, 1)
    expected = (vae.decode(by_hand).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(LatentDecoder(loaded)(z), expected, rtol=0, atol=1e-6)


def test_without_statistics_latents_are_scaled_alone(model: Path) -> None:
    use_autoencoder_kl(model, scaling_factor=0.5, shift_factor=0.25)
    loaded = load_diffusion(model)
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    vae: Any = loaded.vae
    assert torch.equal(LatentDecoder(loaded)(z), (vae.decode(z / 0.5 + 0.25).sample * 0.5 + 0.5).clamp(0, 1))


@pytest.mark.parametrize(("key", "other"), [("latents_mean", "latents_std"), ("latents_std", "latents_mean")])
def test_half_of_the_statistics_is_refused(model: Path, key: str, other: str) -> None:
    use_autoencoder_kl(model, **{key: [1.0] * 4})
    _refused(model, f"{other} = None; expected 4 numbers")


def test_statistics_of_another_number_of_channels_are_refused(model: Path) -> None:
    use_autoencoder_kl(model, latents_mean=[1.0] * 4, latents_std=[1.0] * 3)
    _refused(model, "latents_std = .*expected 4 numbers")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scaling_factor": 0}, "scaling_factor = 0; expected a number above 0"),
        ({"scaling_factor": "x"}, "scaling_factor = 'x'; expected a number above 0"),
        ({"scaling_factor": float("nan")}, "scaling_factor = nan; expected a number above 0"),
        ({"shift_factor": "x"}, "shift_factor = 'x'; expected a number"),
        ({"latents_mean": ["a"] * 4, "latents_std": [1.0] * 4}, "latents_mean = 'a'; expected a number"),
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0, 0.0, 1.0, 1.0]}, "latents_std = 0.0; expected a number abo"),
    ],
)
def test_what_latents_cannot_be_computed_with_is_refused(model: Path, changes: dict[str, Any], words: str) -> None:
    use_autoencoder_kl(model, **changes)
    _refused(model, words)


@pytest.mark.parametrize(
    ("dtype", "upcast", "expected"),
    [
        (torch.float16, True, torch.float32),
        (torch.float16, False, torch.float16),
        (torch.float16, None, torch.float16),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.float32, True, torch.float32),
    ],
)
def test_force_upcast_keeps_the_autoencoder_in_float32(
    model: Path, dtype: torch.dtype, upcast: bool | None, expected: torch.dtype
) -> None:
    use_autoencoder_kl(model)
    config = model / "vae" / "config.json"
    document = json.loads(config.read_text())
    del document["force_upcast"]
    config.write_text(json.dumps(document if upcast is None else document | {"force_upcast": upcast}))
    loaded = load_diffusion(model, dtype=dtype)
    assert loaded.vae_dtype == expected
    assert next(loaded.unet.parameters()).dtype == dtype
    images = LatentDecoder(loaded)(torch.zeros(1, 4, 8, 8, dtype=dtype))
    assert images.dtype == expected
    assert torch.isfinite(images).all()


def test_the_decoder_takes_latents_of_any_type_and_gives_their_gradient(model: Path) -> None:
    decoder = LatentDecoder(load_diffusion(model))
    latents = torch.zeros(1, 4, 8, 8, dtype=torch.float16, requires_grad=True)
    decoder(latents).sum().backward()
    assert latents.grad is not None
    assert latents.grad.dtype == torch.float16


def _tokenizer(model: Path, limit: float | None) -> None:
    config = model / "tokenizer" / "tokenizer_config.json"
    document = json.loads(config.read_text())
    del document["model_max_length"]
    config.write_text(json.dumps(document if limit is None else document | {"model_max_length": limit}))


@pytest.mark.parametrize(("limit", "expected"), [(None, 8), (int(1e30), 8), (77, 8), (8, 8), (5, 5)])
def test_the_encoder_limits_the_tokenizer(model: Path, limit: float | None, expected: int) -> None:
    _tokenizer(model, limit)
    assert load_diffusion(model).tokenizer.model_max_length == expected
    assert outline_diffusion(model).tokenizer.model_max_length == expected


def test_a_tokenizer_without_its_config_is_limited_too(model: Path) -> None:
    os.unlink(model / "tokenizer" / "tokenizer_config.json")
    assert load_diffusion(model).tokenizer.model_max_length == 8


def test_more_tokens_than_the_encoder_knows_are_refused(model: Path) -> None:
    loaded = load_diffusion(model).tokenizer
    loaded.add_tokens(["unicorn"])
    loaded.save_pretrained(model / "tokenizer")
    _refused(model, "knows 15 tokens, its text encoder 14")


def test_a_tokenizer_without_a_vocabulary_is_refused(model: Path) -> None:
    """Transformers would take every word for unknown."""
    (model / "tokenizer" / "tokenizer.json").unlink()
    _refused(model, "tokenizer cannot be loaded: it holds no vocabulary")
