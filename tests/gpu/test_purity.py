"""What a run on a GPU never does: wait inside of the loop, or copy piece by piece. Seen on a device that is faked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast, get_args

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from benchmarks.random_models import write_model
from prism_fast.config import RunConfig, assign, load_config
from prism_fast.config.schema import Objective, SolverName
from prism_fast.dataset.plan import build_plan
from prism_fast.models import text
from prism_fast.models.text import encode_prompts
from prism_fast.sampling.loop import Sampled
from prism_fast.synthesis.synthesizer import Made, Synthesizer
from tests.gpu.fake import CUDA, Log, NoGradient, fake_cuda

TO, FROM = "cpu to cuda", "cuda to cpu"
ROWS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "savings": {"sampling.reuse_every": 2, "sampling.guidance_interval": (0.0, 0.8), "guidance.every": 2},
    "unguided": {"guidance.enabled": False},
    "half": {"sampling.dtype": "float16"},
    "light": {"guidance.decoder": "light", "models.light_decoder": "minis"},
    "chunks": {"sampling.dtype": "float16", "engines.decoder_batch": 2},
    "sdxl": {},
    "sdxl half": {"sampling.dtype": "float16", "sampling.reuse_every": 2},
    **{objective: {"guidance.objective": objective} for objective in get_args(Objective)},
    **{solver: {"sampling.solver": solver} for solver in get_args(SolverName)},
}


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Two text encoders, pooled text and time ids."""
    model = write_model("sdxl", tmp_path_factory.mktemp("sdxl"), divide=32)
    return load_config("minis-emoji", (f"models.diffusion={model}", "sampling.steps=4", "sampling.batch_size=4"))


@pytest.fixture(params=SETTINGS)
def run(request: pytest.FixtureRequest, config: RunConfig, sdxl: RunConfig) -> Synthesizer:
    """A run of each of the settings."""
    base = load_config("minis-emoji", ("sampling.steps=4",)) if request.param == "light" else config
    return prepared(sdxl if "sdxl" in request.param else base, **SETTINGS[request.param])


def prepared(config: RunConfig, **changes: Any) -> Synthesizer:
    """A run that knows its prompts already: each is embedded once, by a tokenizer whose numbers must be seen."""
    run = Synthesizer.load(assign(config, changes))
    run.engines = replace(run.engines, energy_gradient=cast(Any, NoGradient(run.classes)))
    run.sampler.engines = run.engines
    rows = build_plan(run.config, ROWS)
    run.embed([*(r.negative_prompt for r in rows), *(r.prompt for r in rows)])
    return run


def test_denoising_never_waits_and_copies_once(run: Synthesizer) -> None:
    rows = build_plan(run.config, ROWS)
    with fake_cuda(run), Log() as log:
        sampled = run.denoise(rows)
    assert sampled.latents.device.type == "cuda"
    assert log.waits == {}
    assert [line for (_, blocks, line) in log.copies if blocks] == []
    assert (log.count(TO, blocking=False), log.count(FROM, blocking=False)) == (1, 0)


@pytest.mark.parametrize("run", ["plain", "half", "chunks", "sdxl", "sdxl half"], indirect=True)
def test_finishing_copies_once_and_waits_once(run: Synthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = build_plan(run.config, ROWS)
    waited: list[torch.device] = []
    seen: list[tuple[torch.device, ...]] = []

    def samples(self: Synthesizer, rows: Any, *found: torch.Tensor) -> Made:
        seen.append(tuple(x.device for x in found if isinstance(x, torch.Tensor)))
        return Made((), ())

    monkeypatch.setattr("prism_fast.sampling.transfer.wait_for", waited.append)
    monkeypatch.setattr(Synthesizer, "_samples", samples)
    with fake_cuda(run):
        n, shape = len(rows), run.sampler.latent_shape
        flags, counts = torch.ones(n, dtype=torch.bool, device="cuda"), torch.zeros(n, dtype=torch.int64, device="cuda")
        sampled = Sampled(
            torch.zeros(n, *shape, device="cuda"), torch.zeros(n, device="cuda"), flags, counts, counts.clone()
        )
        with Log() as log:
            run.finish(rows, sampled)
    assert log.waits == {}
    assert [line for (_, blocks, line) in log.copies if blocks] == []
    assert (log.count(FROM, blocking=False), log.count(TO, blocking=False)) == (1, 0)
    assert len(waited) == 1
    assert {device.type for device in seen[0]} == {"cpu"}


@pytest.mark.parametrize("name", ["plain", "sdxl"])
def test_prompts_are_embedded_without_waiting(
    config: RunConfig, sdxl: RunConfig, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(sdxl if name == "sdxl" else config)
    prompts, encoders = ["a red cat", "a blue dog"], run._encoders()
    known = {id(tokenizer): text.tokenize(prompts, tokenizer) for tokenizer, _ in encoders}
    monkeypatch.setattr(text, "tokenize", lambda prompts, tokenizer: known[id(tokenizer)])
    with fake_cuda(run), Log() as log:
        made = encode_prompts(prompts, encoders, CUDA)
    assert {x.device.type for x in made.tensors()} == {"cuda"}
    assert log.waits == {}
    assert [line for (_, blocks, line) in log.copies if blocks] == []
    assert log.count(TO, blocking=False) == 2 * len(encoders)  # ids and mask


def test_the_log_sees_what_it_is_for(config: RunConfig) -> None:
    run = prepared(config)
    with fake_cuda(run), Log() as log:
        torch.zeros(3).to("cuda")
        x = torch.zeros(3, device="cuda")
        x.cpu()
        with pytest.raises(DataDependentOutputException):
            float(x[0])
    assert (log.count(TO, blocking=True), log.count(FROM, blocking=True)) == (1, 1)
    assert log.waits.total() == 1


def test_two_devices_in_one_operator_are_refused(config: RunConfig) -> None:
    with fake_cuda(prepared(config)), pytest.raises(RuntimeError, match="device"):
        torch.zeros(3) + torch.zeros(3, device="cuda")
