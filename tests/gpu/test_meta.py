"""The whole loop and the trainer's step on torch's meta device: shapes, types and no values, so nothing can be read.

It sees what a fake CUDA device cannot: autograd, through the decoder and the teacher, and through the UNet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from benchmarks.random_models import write_model
from prism_fast.config import RunConfig, assign
from prism_fast.config.schema import SolverName
from prism_fast.dataset.plan import build_plan
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation import Task, create_student
from prism_fast.distillation.parallel import World
from prism_fast.distillation.train import make_trainer
from prism_fast.estimate.outline import outline_run
from prism_fast.models.classifier import Classifier, ClassifierConfig
from prism_fast.synthesis import synthesizer
from prism_fast.synthesis.synthesizer import Made, Synthesizer
from tests.data import toy
from tests.gpu.test_trainer_purity import Batches

META = torch.device("meta")
ROWS = 3
SHALLOW: dict[str, dict[str, Any]] = {
    "unet": {"transformer_layers_per_block": [1, 1, 1], "layers_per_block": 1},
    "vae": {"layers_per_block": 1},
    "text_encoder": {"num_hidden_layers": 2},
    "text_encoder_2": {"num_hidden_layers": 2},
}
CLASSES = 3


MODES = pytest.mark.parametrize("mode", ["denoised", "latent"])


@pytest.fixture(scope="module")
def sdxl(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Two text encoders, pooled text and time ids, an autoencoder of four levels; shallow: each layer costs time."""
    model = write_model("sdxl", tmp_path_factory.mktemp("sdxl"), divide=32)
    for part, changes in SHALLOW.items():
        file = model / part / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return assign(config, {"models.diffusion": str(model)})


def on_meta(config: RunConfig, **changes: Any) -> Synthesizer:
    """The run without weights, as ``plan`` counts it, in any mode and type."""
    wanted = assign(config, {"sampling.steps": 3, **changes})
    outline = outline_run(assign(wanted, {"guidance.mode": "denoised"}))
    dtype = getattr(torch, wanted.sampling.dtype)
    for network in (outline.model.unet, outline.model.vae, outline.model.text_encoder, outline.model.text_encoder_2):
        if network is not None and dtype != torch.float32:
            network.to(dtype)
    return Synthesizer(assign(wanted, {"sampling.device": "meta"}), outline.model, outline.teacher, {})


def require_sampled(run: Synthesizer) -> None:
    sampled = run.denoise(build_plan(run.config, ROWS))
    assert {x.device for x in vars(sampled).values() if x is not None} == {META}
    assert (sampled.latents.shape, sampled.latents.dtype) == ((ROWS, *run.sampler.latent_shape), torch.float32)
    for numbers in (sampled.energy_before, sampled.finite, sampled.guided, sampled.refused):
        assert numbers.shape == (ROWS,)


@MODES
@pytest.mark.parametrize("solver", get_args(SolverName))
def test_every_solver_samples_a_batch_without_reading_a_number(config: RunConfig, solver: str, mode: str) -> None:
    require_sampled(on_meta(config, **{"guidance.mode": mode, "sampling.solver": solver}))


@MODES
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sdxl_is_sampled_without_reading_a_number(sdxl: RunConfig, dtype: str, mode: str) -> None:
    require_sampled(on_meta(sdxl, **{"guidance.mode": mode, "sampling.dtype": dtype}))


@MODES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_networks_of_half_precision_give_float32_latents(config: RunConfig, dtype: str, mode: str) -> None:
    require_sampled(on_meta(config, **{"guidance.mode": mode, "sampling.dtype": dtype}))


def test_every_saving_but_one_reads_nothing(config: RunConfig) -> None:
    savings = {"sampling.reuse_every": 2, "sampling.guidance_interval": (0.0, 0.8), "guidance.every": 2}
    require_sampled(on_meta(config, **savings))
    require_sampled(on_meta(config, **{"guidance.enabled": False}))
    with pytest.raises((NotImplementedError, RuntimeError)):  # how many samples are settled is looked at
        require_sampled(on_meta(config, **{"guidance.settled_below": 0.5}))


def test_what_is_finished_is_read_once_all_of_it(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[torch.Tensor, ...]] = []

    def to_host(found: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        given.append(found)
        return found

    monkeypatch.setattr(synthesizer, "to_host", to_host)
    monkeypatch.setattr(Synthesizer, "_samples", lambda self, rows, *found: Made((), ()))
    run, rows = on_meta(config), build_plan(config, ROWS)
    run.finish(rows, run.denoise(rows))
    ((pixels, logits, *more),) = given
    assert (pixels.shape, pixels.dtype) == ((ROWS, 3, 16, 16), torch.uint8)
    assert (logits.shape, logits.dtype) == ((ROWS, CLASSES), torch.float32)
    assert {x.device for x in (pixels, logits, *more)} == {META}


@pytest.mark.parametrize("teacher", ["stored", "live"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("student", ["test_resnet", "test_vit"])
def test_a_student_is_trained_without_a_number_being_read(
    shards: ShardSet, tmp_path: Path, student: str, optimizer: str, teacher: str
) -> None:
    settings = toy.config(student=student, optimizer=optimizer, teacher=teacher, image_size=32, label_weight=0.2)
    net = create_student("test_resnet", CLASSES).to(META).eval()
    described = ClassifierConfig(
        architecture="test_resnet", num_classes=CLASSES, image_size=64, mean=toy.MEAN, std=toy.STD
    )
    task = Task(settings, shards, tmp_path, toy.MEAN, toy.STD, Classifier(net, described), world=World(META))
    made = make_trainer(task, Batches(settings, META))
    for _ in range(2):
        found = made.train_step()["student"]
        assert (found.device, found.shape, found.dtype) == (META, (4,), torch.float32)
    assert all(p.grad is not None for p in made.learners[0].net.parameters())
