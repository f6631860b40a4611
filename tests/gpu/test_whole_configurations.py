"""A bundled configuration for a GPU is whole: its models fit together, and a run of it fits the card it names."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderTiny, DDIMScheduler
from transformers import CLIPTextConfig
from typer.testing import CliRunner

from benchmarks import random_models
from prism_fast.cli.main import app
from prism_fast.config import RunConfig, bundled_configs, load_config
from prism_fast.estimate.count import RunCost, count_run
from prism_fast.estimate.devices import find_device
from prism_fast.estimate.estimate import Estimate, Request, make_estimate
from prism_fast.estimate.outline import outline_run
from prism_fast.labels.load import load_label_space
from prism_fast.models.classifier import outline_classifier
from prism_fast.models.label_space import for_label_space
from prism_fast.models.training_loss import binary_loss
from prism_fast.sampling.savings import make_savings
from tests.cli.conftest import restored

KINDS = {
    "imagenet1k-sd15": "sd15",
    "imagenet1k-sdxl": "sdxl",
    "imagenet100-sd15": "sd15",
    "imagenette-sd15": "sd15",
}


def _settings(folder: Path, class_name: str, **values: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": class_name, **values}))


def outline(kind: str, out: Path) -> Path:
    """The folder of a published model without its weights: configurations and a tokenizer, some kilobytes."""
    second = kind == "sdxl"
    unet = random_models.SDXL_UNET if second else random_models.SD15_UNET
    widths = (768, 1280) if second else (768,)
    added = {"projection_class_embeddings_input_dim": 1280 + 6 * 256} if second else {}
    _settings(
        out / "unet",
        "UNet2DConditionModel",
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        cross_attention_dim=sum(widths),
        **added,
        **unet,
    )
    _settings(
        out / "vae",
        "AutoencoderKL",
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.13025 if second else 0.18215,
    )
    layers, heads = (12, 32), (12, 20)
    for number, width in enumerate(widths):
        name = "text_encoder_2" if number else "text_encoder"
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers[number],
            num_attention_heads=heads[number],
            projection_dim=width,
        ).save_pretrained(out / name)
        random_models._tokenizer(out / name.replace("text_encoder", "tokenizer"))
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    DDIMScheduler(**schedule, clip_sample=False).save_pretrained(out / "scheduler")
    random_models._index(out, "StableDiffusionXLPipeline" if second else "StableDiffusionPipeline", second)
    AutoencoderTiny().save_config(out / "light_decoder")
    return out


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A bundled configuration; in place of its models, such folders."""
    name: str = request.param
    folder = outline(KINDS[name], tmp_path_factory.mktemp("models") / KINDS[name])
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 200_000
    models = (f"models.diffusion={folder}", f"models.light_decoder={folder / 'light_decoder'}")
    return load_config(name, models)


def counted(config: RunConfig) -> RunCost:
    """Counting takes seconds, so each configuration is counted once."""
    return _counted(config.model_dump_json())


@lru_cache
def _counted(document: str) -> RunCost:
    return count_run(outline_run(RunConfig.model_validate_json(document)))


def planned(config: RunConfig, device: str) -> Estimate:
    card = find_device(device)
    request = Request(config.synthesis.images, 1, card.usd_per_hour)
    return make_estimate(config, counted(config), request, card)


def test_the_list_is_every_configuration_for_a_gpu() -> None:
    cuda = {name for name in bundled_configs() if load_config(name).sampling.device == "cuda"}
    assert cuda == KINDS.keys()


def test_a_run_fits_an_h100(whole: RunConfig) -> None:
    made = planned(whole, "h100")
    most = max((p.activation_bytes, p.part) for p in counted(whole).parts if p.calls)
    said = f"{made.peak_memory_bytes / 1e9:.1f} GB, most of them of {most[1]} ({most[0] / 1e9:.1f} GB in float32)"
    assert made.fits, said
    assert most[1] == "decoder", said


@pytest.mark.parametrize(("card", "rows"), [("l4", 8), ("t4", 4)])
@pytest.mark.parametrize("name", ["imagenet100-sd15", "imagenette-sd15"])
def test_what_is_to_begin_with_fits_a_card_of_24_and_in_smaller_pieces_one_of_16_gb(
    tmp_path: Path, name: str, card: str, rows: int
) -> None:
    """With a tenth to spare for what the plan does not count: workspace and fragments."""
    folder = outline("sd15", tmp_path / "sd15")
    models = (f"models.diffusion={folder}", f"models.light_decoder={folder / 'light_decoder'}")
    config = load_config(name, (*models, f"engines.decoder_batch={rows}", f"engines.gradient_batch={rows}"))
    assert config.synthesis.shard_size % config.sampling.fixed_batch_size == 0
    made = planned(config, card)
    assert made.peak_memory_bytes < 0.9 * find_device(card).memory_bytes
    assert config.synthesis.images % config.synthesis.shard_size == 0


def test_its_parts_do_not_pass_through_the_full_decoder(whole: RunConfig) -> None:
    """The gradient through SD-1.5's own decoder takes 49 GB at a batch of 8, through SDXL's 195 GB."""
    full = whole.model_copy(update={"guidance": whole.guidance.model_copy(update={"decoder": "full"})})
    light, dear = (next(p for p in counted(one).parts if p.part == "energy_gradient") for one in (whole, full))
    assert light.activation_bytes < dear.activation_bytes / 4


def test_it_computes_with_engines_or_eager_in_half_precision(whole: RunConfig) -> None:
    assert (whole.engines.backend, whole.sampling.dtype) == ("auto", "float32")
    eager = load_config(whole.name, ("engines.backend=eager", "sampling.dtype=bfloat16"))
    assert eager.engines.backend == "eager"
    models = whole.models.model_dump()
    assert planned(eager.model_copy(update={"models": type(whole.models)(**models)}), "h100").fits


def test_every_saving_is_on_and_every_energy_step_has_a_correction(whole: RunConfig) -> None:
    steps = make_savings(whole.sampling.steps, whole.sampling, whole.guidance)
    assert {step.network for step in steps} == {"deep", "shallow"}
    assert {step.both for step in steps} == {True, False}
    assert [i for i, step in enumerate(steps) if step.gradient != "none" and not step.both] == []
    assert whole.launch.pipeline_depth > 0
    assert whole.synthesis.image_format == "jpg"
    assert whole.synthesis.shard_size % whole.sampling.fixed_batch_size == 0  # a batch is never half empty
    assert whole.sampling.fixed_batch_size % (whole.engines.gradient_batch or 1) == 0


def test_the_teacher_knows_the_label_space_and_was_trained_with_softmax(whole: RunConfig) -> None:
    named = outline_classifier(whole.models.teacher)
    assert binary_loss(named.config) is None
    assert whole.models.teacher.endswith(".tv_in1k")
    space = load_label_space(whole.labels)
    teacher = for_label_space(named, space)
    assert teacher.config.num_classes == len(space.classes)
    assert outline_run(whole).classes == len(space.classes)


def test_the_command_says_so(whole: RunConfig, tmp_path: Path) -> None:
    file = tmp_path / "whole.json"
    file.write_text(whole.model_dump_json())
    with restored():
        answer = CliRunner().invoke(app, ["plan", str(file), "--device", "h100", "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["fits"] is True
