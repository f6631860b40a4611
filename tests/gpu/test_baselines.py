"""The benchmark's baselines keep their tensors on the GPU: shown with CUDA tensors that need no driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import naive
from benchmarks.naive import DiffusersPipeline, NaiveGuided
from prism_fast.config import load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.models.text import tokenize
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.gpu.fake import fake_cuda
from tests.tiny import write_config


class WithoutAutograd(NaiveGuided):
    """The energy is computed, its backward pass is not: autograd does not work on fake CUDA tensors."""

    def _gradient(self, z: Tensor, clean: Tensor, labels: Tensor, indices: Sequence[int], i: int) -> Tensor:
        energy = self.energy(naive.decode(self.synthesizer, clean), labels, indices, i)
        assert energy.shape == (len(indices),)
        assert energy.device.type == clean.device.type == "cuda"
        return torch.zeros_like(clean)


class TwoSteps:
    """In place of diffusers' scheduler, which reads its own numbers on the host: fake tensors have none."""

    timesteps = (500, 1)
    alphas_cumprod = torch.linspace(0.99, 0.01, 1000)

    def step(self, output: Tensor, t: int, z: Tensor) -> SimpleNamespace:
        return SimpleNamespace(prev_sample=z + output)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synthesizer:
    made = Synthesizer.load(load_config(str(write_config(tmp_path))))
    rows = build_plan(made.config, 2)
    known = {prompts: tokenize(prompts, made.model.tokenizer) for prompts in _asked(rows)}
    monkeypatch.setattr(naive, "tokenize", lambda prompts, tokenizer: known[tuple(prompts)])
    monkeypatch.setattr(naive, "scheduler_of", lambda synthesizer: TwoSteps())
    return made


def _asked(rows: Sequence[Any]) -> list[tuple[str, ...]]:
    negative, positive = tuple(r.negative_prompt for r in rows), tuple(r.prompt for r in rows)
    return [negative, positive, negative + positive]


def test_naive_guidance_stays_on_the_gpu(run: Synthesizer) -> None:
    rows = build_plan(run.config, 2)
    with fake_cuda(run), torch.no_grad():
        latents = WithoutAutograd(run, through_unet=False).latents(rows)
    assert latents.device.type == "cuda"
    assert latents.shape == (2, *run.sampler.latent_shape)


def test_diffusers_own_pipeline_is_given_tensors_of_the_gpu(run: Synthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Pipeline:
        def __init__(self, **parts: Any) -> None:
            pass

        def set_progress_bar_config(self, disable: bool) -> None:
            pass

        def __call__(self, **inputs: Any) -> SimpleNamespace:
            given.update(inputs)
            return SimpleNamespace(images=inputs["latents"])

    monkeypatch.setattr(naive, "StableDiffusionPipeline", Pipeline)
    with fake_cuda(run), torch.no_grad():
        DiffusersPipeline(run).latents(build_plan(run.config, 2))
    tensors = {name: x.device.type for name, x in given.items() if isinstance(x, Tensor)}
    assert tensors == {"prompt_embeds": "cuda", "negative_prompt_embeds": "cuda", "latents": "cuda"}
