"""Counts against sums by hand, against the real weights, and without memory for large models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prism_fast.config import RunConfig
from prism_fast.errors import DataError, InputError
from prism_fast.estimate.count import RunCost, count_call, count_run
from prism_fast.estimate.outline import outline_run
from prism_fast.models.diffusers_blocks import WholeUNet
from prism_fast.synthesis.synthesizer import Synthesizer


@pytest.fixture(scope="module")
def cost(config: RunConfig) -> RunCost:
    return count_run(outline_run(config))


def test_a_product_by_hand() -> None:
    """(5, 7) by (7, 3), float32: two operations a term; inputs, weights, bias and output pass once."""
    net = nn.Linear(7, 3, device="meta")
    found = count_call("linear", 4, net, lambda: net(torch.zeros(5, 7, device="meta")))
    assert (found.calls, found.flops) == (4, 2 * 5 * 7 * 3)
    assert found.moved_bytes == 4 * (5 * 7 + 7 * 3 + 3 + 5 * 3)
    assert found.weight_bytes == 4 * (7 * 3 + 3)
    assert found.activation_bytes == 4 * (5 * 7 + 5 * 3)


def test_memory_that_is_given_back_is_not_counted_twice() -> None:
    net = nn.Identity()

    def chain() -> None:
        x = torch.zeros(1000, device="meta")
        for _ in range(5):
            x = x + 1  # the one before is dropped

    assert count_call("chain", 1, net, chain).activation_bytes == 2 * 4 * 1000


def test_attention_stores_no_matrix_of_scores() -> None:
    q = torch.zeros(1, 1, 4096, 64, device="meta")
    found = count_call("attention", 1, nn.Identity(), lambda: F.scaled_dot_product_attention(q, q, q))
    assert found.flops == 2 * 2 * 4096 * 4096 * 64
    assert found.activation_bytes < 4 * 4096 * 4096 / 8


def test_the_meta_device_counts_what_the_real_networks_compute(config: RunConfig, cost: RunCost) -> None:
    run = Synthesizer.load(config)
    rows = 2 * config.sampling.fixed_batch_size
    # torch counts no FLOPs of the CPU's fused attention
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        WholeUNet(run.model.unet)(
            torch.zeros(rows, 4, 8, 8), torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, 8, 16)
        )
    (unet,) = (part for part in cost.parts if part.part == "unet")
    assert unet.flops == counter.get_total_flops() > 0
    assert unet.weight_bytes == sum(4 * p.numel() for p in run.model.unet.parameters())


def test_every_part_is_counted_as_often_as_a_batch_calls_it(config: RunConfig, cost: RunCost) -> None:
    assert {part.part: part.calls for part in cost.parts} == {
        "text_encoder": 1, "unet": 4, "energy_gradient": 3, "decoder": 1, "teacher": 1,
    }  # fmt: skip
    assert all(part.flops > 0 and part.moved_bytes > 0 for part in cost.parts)
    decoder, gradient = (next(p for p in cost.parts if p.part == name) for name in ("decoder", "energy_gradient"))
    assert 2 * decoder.flops < gradient.flops  # forward and backward of the decoder, and the teacher's


def test_reuse_counts_both_halves_of_the_unet(config: RunConfig, cost: RunCost) -> None:
    sampling = config.sampling.model_copy(update={"reuse_every": 2})
    halves = {p.part: p for p in count_run(outline_run(config.model_copy(update={"sampling": sampling}))).parts}
    (whole,) = (part for part in cost.parts if part.part == "unet")
    assert halves["unet_deep"].flops == whole.flops
    assert 0 < halves["unet_shallow"].flops < whole.flops
    assert halves["unet_deep"].calls + halves["unet_shallow"].calls == 4


def test_a_decoder_of_fewer_rows_needs_less_memory_and_more_calls(config: RunConfig, cost: RunCost) -> None:
    engines = config.engines.model_copy(update={"decoder_batch": 1})
    found = count_run(outline_run(config.model_copy(update={"engines": engines})))
    one, whole = (next(p for p in each.parts if p.part == "decoder") for each in (found, cost))
    assert (one.calls, whole.calls) == (config.sampling.fixed_batch_size, 1)
    assert one.calls * one.flops == whole.flops
    assert one.activation_bytes == pytest.approx(whole.activation_bytes / one.calls, rel=0.1)


def test_without_guidance_there_is_no_gradient(config: RunConfig) -> None:
    plain = config.model_copy(update={"guidance": config.guidance.model_copy(update={"enabled": False})})
    assert "energy_gradient" not in {part.part for part in count_run(outline_run(plain)).parts}


def test_a_large_unet_is_counted_from_its_configuration_alone(config: RunConfig, tmp_path: Path) -> None:
    """Stable Diffusion 1.5's UNet, 859.5 M parameters and 402 GMAC at 64² (published figures), and no weights' file."""
    from benchmarks.random_models import SD15_UNET

    path, source = tmp_path / "diffusion", Path(config.models.diffusion)
    (path / "unet").mkdir(parents=True)
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        (path / part).symlink_to(source / part)
    (path / "model_index.json").write_text((source / "model_index.json").read_text())
    shape = {**SD15_UNET, "cross_attention_dim": 16, "layers_per_block": 2, "_class_name": "UNet2DConditionModel"}
    (path / "unet" / "config.json").write_text(json.dumps(shape))
    sampling = config.sampling.model_copy(update={"height": 128, "width": 128, "batch_size": 1})
    models = config.models.model_copy(update={"diffusion": str(path)})
    run = outline_run(config.model_copy(update={"sampling": sampling, "models": models}))
    assert {p.device.type for p in run.model.unet.parameters()} == {"meta"}
    (unet,) = (part for part in count_run(run).parts if part.part == "unet")
    assert 3.2e9 < unet.weight_bytes < 3.45e9


def test_models_that_are_not_there_are_one_line(config: RunConfig, tmp_path: Path) -> None:
    models = config.models.model_copy(update={"diffusion": str(tmp_path / "absent")})
    with pytest.raises(
        DataError, match=r"model directory .*absent does not exist; give a directory in diffusers' format"
    ):
        outline_run(config.model_copy(update={"models": models}))


def test_the_slow_reference_is_not_planned_for(config: RunConfig) -> None:
    guidance = config.guidance.model_copy(update={"mode": "latent"})
    with pytest.raises(InputError, match=r"guidance\.mode is latent"):
        outline_run(config.model_copy(update={"guidance": guidance}))
