"""``sampling.dtype`` in half precision: everything runs, and makes nearly what float32 makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.random_models import write_model
from prism_fast.config import RunConfig, assign, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.guidance.network import HalfDecoder, LatentClassifier, energy_gradient_engine
from prism_fast.models.classifier import Classifier
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.tiny import make_light_decoder, write_config

HALVES = ("float16", "bfloat16")
#: Mean difference of pixels to float32: bfloat16 keeps eight bits, and the tiny UNet runs four times.
NEAR = {"float16": 1.0, "bfloat16": 4.0}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("half")
    path = write_config(folder)
    light = make_light_decoder(folder / "light")
    return load_config(str(path), (f"models.light_decoder={light}",))


def settings(dtype: str, guided: bool, mode: str) -> dict[str, Any]:
    return {"sampling.dtype": dtype, "guidance.enabled": guided, "guidance.mode": mode}


@pytest.mark.parametrize("mode", ["denoised", "latent"])
@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_run_is_made_in_half_precision(config: RunConfig, dtype: str, guided: bool, mode: str) -> None:
    rows = build_plan(config, 4)
    found = Synthesizer.load(assign(config, settings(dtype, guided, mode))).make(rows).samples
    wanted = Synthesizer.load(assign(config, settings("float32", guided, mode))).make(rows).samples
    assert [s.index for s in found] == [0, 1, 2, 3]
    for a, b in zip(found, wanted, strict=True):
        assert (a.image.dtype, a.logits.dtype) == (torch.uint8, torch.float32)
        assert (a.image.float() - b.image.float()).abs().mean() < NEAR[dtype]
        assert a.meta["guided_steps"] == b.meta["guided_steps"]
        assert a.meta["refused_gradients"] == 0
        assert (a.meta["guided_steps"] > 0) is guided


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "changes",
    [
        {"guidance.decoder": "light"},
        {"sampling.reuse_every": 2, "sampling.guidance_interval": (0.0, 0.8)},
        {"engines.gradient_batch": 3},
        {"guidance.settled_below": 0.0},
        {"engines.fused_norms": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_saving_runs_in_half_precision(config: RunConfig, dtype: str, changes: dict[str, Any]) -> None:
    run = Synthesizer.load(assign(config, {"sampling.dtype": dtype, **changes}))
    assert len(run.make(build_plan(config, 4)).samples) == 4


def test_types_meet_where_they_should(config: RunConfig) -> None:
    run = Synthesizer.load(assign(config, {"sampling.dtype": "bfloat16"}))
    assert {p.dtype for p in run.model.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in run.teacher.net.parameters()} == {torch.float32}
    batch = run.batch(build_plan(config, 4))
    sampled = run.sampler.sample(batch, run.device)
    assert (sampled.latents.dtype, batch.conditions[0].dtype) == (torch.float32, torch.bfloat16)
    assert run.engines.decoder.run(sampled.latents)[0].dtype == torch.float32
    energy, gradient, logits = run.engines.energy_gradient.run(
        sampled.latents, batch.labels, run.sampler.boxes(batch.indices, 0)
    )
    assert energy.dtype == gradient.dtype == logits.dtype == torch.float32


def test_engines_are_made_from_float32_whatever_the_type(config: RunConfig) -> None:
    run = Synthesizer.load(assign(config, {"sampling.dtype": "float16", "engines.backend": "openvino"}))
    assert {p.dtype for p in run.model.unet.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
def test_sdxl_is_made_in_half_precision(dtype: str, tmp_path: Path) -> None:
    model = write_model("sdxl", tmp_path / "sdxl", divide=32)
    changes = ("sampling.batch_size=2", "sampling.steps=2", "engines.backend=eager", "guidance.window=[0, 1]")
    config = load_config("minis-emoji", (f"models.diffusion={model}", f"sampling.dtype={dtype}", *changes))
    run = Synthesizer.load(config)
    assert run.conditions(["", "a red cat"])[2].dtype == torch.float32  # sizes are exact
    assert len(run.make(build_plan(config, 2)).samples) == 2


class Confident(nn.Module):
    """A teacher that is sure of everything: its gradient is smaller than float16's smallest number."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images) * 1e-9
        return logits


@pytest.mark.parametrize("dtype", HALVES)
def test_a_gradient_below_half_precision_does_not_vanish(config: RunConfig, dtype: str) -> None:
    exact = Synthesizer.load(config)
    half = Synthesizer.load(assign(config, {"sampling.dtype": dtype}))
    teacher = Classifier(Confident(exact.teacher.net), exact.teacher.config)
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = z, torch.arange(4) % 3, exact.sampler.boxes(range(4), 0)
    (_, wanted, _), (_, found, _) = (
        energy_gradient_engine(run.decoder, teacher, config.guidance).run(*inputs) for run in (exact, half)
    )
    wanted, found = wanted.double(), found.double()  # so small that a cosine in float32 is none
    assert wanted.abs().max() < 2**-24  # the smallest float16
    assert (torch.nn.functional.cosine_similarity(found.flatten(1), wanted.flatten(1), eps=1e-40) > 0.95).all()
    torch.testing.assert_close(found.flatten(1).norm(dim=1), wanted.flatten(1).norm(dim=1), rtol=0.1, atol=0)


def test_float32_is_decoded_by_the_decoder_itself(config: RunConfig) -> None:
    run = Synthesizer.load(config)
    assert LatentClassifier(run.decoder, run.teacher, 32).decoder is run.decoder
    run.decoder.half()
    assert isinstance(LatentClassifier(run.decoder, run.teacher, 32).decoder, HalfDecoder)
