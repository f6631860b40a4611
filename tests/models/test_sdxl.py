"""Stable Diffusion XL through the same loader, sampler and parts, against diffusers' own pipeline."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.random_models import write_model
from prism_fast.compile.parts import Parts
from prism_fast.config import load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.errors import DataError
from prism_fast.models.diffusion import load_diffusion
from prism_fast.synthesis.synthesizer import Synthesizer

SETTINGS = ("sampling.batch_size=2", "sampling.steps=2", "engines.backend=eager", "guidance.window=[0, 1]")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model("sdxl", tmp_path_factory.mktemp("sdxl"), divide=32)


@pytest.fixture(scope="module")
def run(sdxl: Path) -> Synthesizer:
    return Synthesizer.load(load_config("minis-emoji", (f"models.diffusion={sdxl}", *SETTINGS)))


def test_conditions_are_those_of_diffusers(run: Synthesizer, sdxl: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipe: Any = StableDiffusionXLPipeline.from_pretrained(sdxl).to(torch.float32)
    text, free_text, pooled, free_pooled = pipe.encode_prompt("a red cat", device="cpu", num_images_per_prompt=1)
    mine = run.conditions(["", "a red cat"])
    torch.testing.assert_close(mine[0], torch.cat([free_text, text]))
    torch.testing.assert_close(mine[1], torch.cat([free_pooled, pooled]))
    assert not mine[0][0].any()  # an empty prompt is zeros, as the model's index says
    assert mine[2].tolist() == [[64, 64, 0, 0, 64, 64]] * 2


def test_samples_are_made_and_guided(run: Synthesizer) -> None:
    made = run.make(build_plan(run.config, 2))
    assert [s.image.shape for s in made.samples] == [(3, 64, 64)] * 2
    assert all(s.meta["guided_steps"] == 2 for s in made.samples)


def test_parts_take_both_encoders_and_the_added_conditions(run: Synthesizer) -> None:
    parts = Parts(run)
    assert "text_encoder_2" in parts.names()
    unet = parts.get("unet")
    assert [t.name for t in unet.spec.inputs] == ["z", "t", "text", "pooled", "time_ids"]
    (prediction,) = unet.oracle.run(*unet.random(0))
    assert prediction.shape == unet.spec.inputs[0].shape
    assert [
        tuple(x.shape[:1]) for x in parts.get("text_encoder_2").oracle.run(*parts.get("text_encoder_2").random(0))
    ] == [(2,)] * 2


def test_a_missing_second_tokenizer_is_named(sdxl: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "sdxl"
    shutil.copytree(sdxl, broken)
    shutil.rmtree(broken / "tokenizer_2")
    with pytest.raises(DataError, match="tokenizer_2"):
        load_diffusion(broken)
