"""Write diffusers directories of real architectures with random weights: Stable Diffusion 1.5, 2.1 and XL at any width.

    python benchmarks/random_models.py sd15 OUT                # full width, 860 M parameters in the UNet
    python benchmarks/random_models.py sdxl OUT --divide 8     # an eighth of the channels, the same blocks

Beside the model lie ``teacher``, a ResNet-50 of 1,000 classes, and ``light_decoder``, TAESD's architecture.
Speed and memory do not depend on what the weights are. Sizes are those of the published configurations (Rombach et al.
2022, Stability AI's 2.1 at 768 pixels, which predicts v; Podell et al. 2023). The tokenizer knows single bytes only:
it splits any text, into more tokens than CLIP's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from prism_fast.models.classifier import ClassifierConfig, save_classifier

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
}
SD21_UNET: dict[str, Any] = {
    **SD15_UNET,
    "sample_size": 96,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "upcast_attention": True,
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
}


@dataclass(frozen=True)
class _Text:
    """A text encoder; ``projected`` is SDXL's second one."""

    width: int
    layers: int
    heads: int
    activation: str = "quick_gelu"
    projected: bool = False


@dataclass(frozen=True)
class _Kind:
    """One published model."""

    unet: dict[str, Any]
    texts: tuple[_Text, ...]
    scaling: float = 0.18215
    prediction: str = "epsilon"


KINDS = {
    "sd15": _Kind(SD15_UNET, (_Text(768, 12, 12),)),
    "sd21": _Kind(SD21_UNET, (_Text(1024, 23, 16, "gelu"),), prediction="v_prediction"),
    "sdxl": _Kind(SDXL_UNET, (_Text(768, 12, 12), _Text(1280, 32, 20, "gelu", projected=True)), 0.13025),
}


def _tokenizer(folder: Path) -> None:
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(folder)


def _text(folder: Path, shape: _Text, divide: int) -> None:
    width = shape.width // divide
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.heads // divide),
        hidden_act=shape.activation,
        projection_dim=width,
        eos_token_id=2,  # what the published configurations say: pool at the largest id, the end of the text
    )
    model: Any = CLIPTextModelWithProjection(config) if shape.projected else CLIPTextModel(config)
    model.half().save_pretrained(folder)


def _vae(folder: Path, divide: int, scaling: float) -> None:
    AutoencoderKL(
        block_out_channels=tuple(c // divide for c in (128, 256, 512, 512)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32 // divide if divide < 32 else 1,
        scaling_factor=scaling,
    ).half().save_pretrained(folder)


def _light_decoder(folder: Path, divide: int) -> None:
    widths = (max(8, 64 // divide),) * 4
    AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths).half().save_pretrained(folder)


def _teacher(folder: Path) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    config = ClassifierConfig(architecture="resnet50", num_classes=1000, image_size=224, mean=mean, std=std)
    save_classifier(timm.create_model("resnet50"), config, folder, torch.float16)


def _index(out: Path, name: str, second: bool) -> None:
    encoders = {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    if second:
        encoders["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        encoders["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], **encoders}
    document: dict[str, Any] = {"_class_name": name, "force_zeros_for_empty_prompt": second, **parts}
    (out / "model_index.json").write_text(
        json.dumps({**document, "scheduler": ["diffusers", "DDIMScheduler"]}, indent=2)
    )


def _unet(folder: Path, kind: _Kind, divide: int) -> None:
    widths = [text.width // divide for text in kind.texts]
    shape = dict(kind.unet)
    shape["block_out_channels"] = tuple(c // divide for c in shape["block_out_channels"])
    if isinstance(shape["attention_head_dim"], tuple):
        shape["attention_head_dim"] = tuple(max(1, n // divide) for n in shape["attention_head_dim"])
    if "addition_embed_type" in shape:
        shape["projection_class_embeddings_input_dim"] = widths[1] + 6 * shape["addition_time_embed_dim"]
    unet = UNet2DConditionModel(
        cross_attention_dim=sum(widths), layers_per_block=2, norm_num_groups=32 // min(divide, 32), **shape
    )
    unet.half().save_pretrained(folder)


def _scheduler(folder: Path, prediction: str) -> None:
    DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type=prediction,
    ).save_pretrained(folder)


def write_model(name: str, out: Path, divide: int = 1) -> Path:
    """Write one of ``KINDS`` with the channels of every network divided by ``divide``."""
    torch.manual_seed(0)
    kind = KINDS[name]
    out.mkdir(parents=True, exist_ok=True)
    _unet(out / "unet", kind, divide)
    _vae(out / "vae", min(divide, 8), kind.scaling)
    for text, suffix in zip(kind.texts, ("", "_2"), strict=False):
        _text(out / f"text_encoder{suffix}", text, divide)
        _tokenizer(out / f"tokenizer{suffix}")
    _scheduler(out / "scheduler", kind.prediction)
    _light_decoder(out / "light_decoder", divide)
    _teacher(out / "teacher")
    second = len(kind.texts) > 1
    _index(out, "StableDiffusionXLPipeline" if second else "StableDiffusionPipeline", second)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=tuple(KINDS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--divide", type=int, default=1, help="divide every width by this")
    given = parser.parse_args()
    write_model(given.kind, given.out, given.divide)
