"""A light decoder is checked against the model whose latents it decodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prism_fast.config import load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.errors import ConfigError, DataError
from prism_fast.models.diffusion import DiffusionModel, load_diffusion, load_light_decoder
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.tiny import make_diffusion, make_light_decoder, write_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    return load_diffusion(make_diffusion(tmp_path_factory.mktemp("models") / "diffusion"))


def test_it_gives_pictures_of_the_models_size(model: DiffusionModel, tmp_path: Path) -> None:
    light = load_light_decoder(make_light_decoder(tmp_path / "light"), model, "cpu", torch.float32)
    images = light(3 * torch.randn(2, 4, 8, 8))
    assert images.shape == (2, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize(("channels", "levels"), [(5, 2), (4, 3)])
def test_other_latents_are_refused(model: DiffusionModel, tmp_path: Path, channels: int, levels: int) -> None:
    path = make_light_decoder(tmp_path / "light", channels, levels)
    with pytest.raises(DataError, match=r"takes .* channels and magnifies"):
        load_light_decoder(path, model, "cpu", torch.float32)


def test_a_missing_directory_is_one_line(model: DiffusionModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no config\.json"):
        load_light_decoder(tmp_path / "nowhere", model, "cpu", torch.float32)


def test_it_steers_and_the_full_decoder_makes_the_picture(tmp_path: Path) -> None:
    sampling = {"steps": 4, "batch_size": 2, "height": 16, "width": 16}
    path = str(write_config(tmp_path, sampling=sampling))
    light = (f"models.light_decoder={make_light_decoder(tmp_path / 'light')}", "guidance.decoder=light")
    full, other = (Synthesizer.load(load_config(path, settings)) for settings in ((), light))
    rows = build_plan(full.config, 2)
    assert not torch.equal(full.denoise(rows).latents, other.denoise(rows).latents)
    latents = full.denoise(rows).latents
    assert torch.equal(full.engines.decoder.run(latents)[0], other.engines.decoder.run(latents)[0])
    assert other.hashes.keys() == {"diffusion", "teacher", "light_decoder"}


def test_asking_for_one_without_naming_it_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.light_decoder names none"):
        load_config(str(write_config(tmp_path)), ("guidance.decoder=light",))
