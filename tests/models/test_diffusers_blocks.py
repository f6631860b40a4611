"""The split UNets compute exactly what the UNet's own forward computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from prism_fast.models.diffusers_blocks import DeepUNet, ShallowUNet, WholeUNet, added_conditions
from tests import tiny

#: What differs from the tiny UNet.
UNETS: dict[str, dict[str, Any]] = {
    "attention inside": {},
    "as Stable Diffusion 1.5": {
        "block_out_channels": (8, 16, 16, 16),
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    },
    "as SDXL": {
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 12 + 6 * 4,
    },
    "text added to time": {"addition_embed_type": "text", "addition_embed_type_num_heads": 4},
    "no middle": {"mid_block_type": None},
    "plain middle": {"mid_block_type": "UNetMidBlock2D"},
    "one block": {
        "block_out_channels": (8,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
    },
    "blocks of different depth": {"layers_per_block": (2, 1)},
}


def unet_of(name: str) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return tiny.unet(**UNETS[name]).eval().requires_grad_(False)


def inputs_of(name: str, size: tuple[int, int] = (8, 8), rows: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    given = random(rows, 4, *size), torch.tensor([3, 950])[:rows], random(rows, 5, 16)
    return (*given, random(rows, 12), random(rows, 6).abs() * 100) if name == "as SDXL" else given


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def own_forward(unet: UNet2DConditionModel, z: Tensor, t: Tensor, text: Tensor, *extra: Tensor) -> Tensor:
    out: Tensor = unet(z, t, encoder_hidden_states=text, added_cond_kwargs=added_conditions(extra)).sample
    return out


def assert_split_is_exact(unet: UNet2DConditionModel, inputs: tuple[Tensor, ...]) -> Tensor:
    """Returns the feature."""
    want = own_forward(unet, *inputs)
    assert torch.equal(WholeUNet(unet)(*inputs), want)
    feature: Tensor
    prediction, feature = DeepUNet(unet)(*inputs)
    assert torch.equal(prediction, want)
    z, t, text, *extra = inputs
    assert torch.equal(ShallowUNet(unet)(z, t, text, *extra, feature), want)
    return feature


@pytest.mark.parametrize("name", UNETS)
def test_the_split_computes_what_the_unet_computes(name: str) -> None:
    unet, inputs = unet_of(name), inputs_of(name)
    feature = assert_split_is_exact(unet, inputs)
    assert len(feature) == len(inputs[0])


@pytest.mark.parametrize("size", [(16, 8), (12, 20), (9, 11), (10, 13)], ids=str)
@pytest.mark.parametrize("name", ["as Stable Diffusion 1.5", "as SDXL", "attention inside"])
def test_sizes_that_are_not_square_or_do_not_halve(name: str, size: tuple[int, int]) -> None:
    assert_split_is_exact(unet_of(name), inputs_of(name, size))


def test_the_feature_enters_the_last_up_block() -> None:
    unet, inputs = unet_of("as Stable Diffusion 1.5"), inputs_of("as Stable Diffusion 1.5")
    seen: list[Tensor] = []
    unet.up_blocks[-1].register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
    )
    assert torch.equal(DeepUNet(unet)(*inputs)[1], seen[0])


def test_the_shallow_network_runs_the_first_and_the_last_block_alone() -> None:
    name = "as Stable Diffusion 1.5"
    unet, inputs = unet_of(name), inputs_of(name)
    feature = DeepUNet(unet)(*inputs)[1]
    ran: list[str] = []
    for kind, part in unet.named_modules():
        if (kind.count(".") == 1 and kind.startswith(("down_blocks", "up_blocks"))) or kind == "mid_block":
            part.register_forward_hook(lambda *_, kind=kind: ran.append(kind))
    ShallowUNet(unet)(*inputs, feature)
    assert ran == ["down_blocks.0", "up_blocks.3"]


def test_an_old_feature_gives_another_prediction_of_the_same_shape() -> None:
    name = "as SDXL"
    unet, inputs = unet_of(name), inputs_of(name)
    z, t, text, *extra = inputs
    feature = DeepUNet(unet)(z * 0.9, t + 20, text, *extra)[1]
    got, want = ShallowUNet(unet)(z, t, text, *extra, feature), own_forward(unet, *inputs)
    assert got.shape == want.shape
    assert not torch.equal(got, want)


def test_a_sample_does_not_depend_on_the_others() -> None:
    unet, inputs = unet_of("attention inside"), inputs_of("attention inside")
    together = DeepUNet(unet)(*inputs)
    alone = DeepUNet(unet)(*(x[1:] for x in inputs))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-5, atol=1e-6)


def test_conditions_that_a_network_needs_must_be_given() -> None:
    unet, inputs = unet_of("as SDXL"), inputs_of("as SDXL")
    with pytest.raises(ValueError, match="text_embeds"):
        DeepUNet(unet)(*inputs[:3])


def test_added_conditions_are_named() -> None:
    assert added_conditions(()) is None
    pooled, ids = torch.zeros(1, 4), torch.ones(1, 6)
    assert added_conditions((pooled, ids)) == {"text_embeds": pooled, "time_ids": ids}
