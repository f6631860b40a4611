"""Write diffusers directories of real architectures with random weights: Stable Diffusion 1.5, and XL at any width.

    python benchmarks/random_models.py sd15 OUT                # full width, 860 M parameters in the UNet
    python benchmarks/random_models.py sdxl OUT --divide 8     # an eighth of the channels, the same blocks

Beside the model lie ``teacher``, a ResNet-50 of 1,000 classes, and ``light_decoder``, TAESD's architecture.
Speed and memory do not depend on what the weights are. Sizes are those of the published configurations (Rombach et al.
2022; Podell et al. 2023). The tokenizer knows single bytes only: it splits any text, into more tokens than CLIP's.
"""

from __future__ import annotations

import argparse
import json
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


def _tokenizer(folder: Path) -> None:
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(folder)


def _text(folder: Path, width: int, layers: int, heads: int, projection: int | None) -> None:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=projection or width,
        eos_token_id=2,  # what the published configurations say: pool at the largest id, the end of the text
    )
    model: Any = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
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


def write_model(kind: str, out: Path, divide: int = 1) -> Path:
    """Write ``sd15`` or ``sdxl`` with the channels of every network divided by ``divide``."""
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    second = kind == "sdxl"
    shape = dict(SDXL_UNET if second else SD15_UNET)
    shape["block_out_channels"] = tuple(c // divide for c in shape["block_out_channels"])
    widths: tuple[int, ...] = (768 // divide, 1280 // divide) if second else (768 // divide,)
    if second:
        shape["projection_class_embeddings_input_dim"] = widths[1] + 6 * 256
        shape["attention_head_dim"] = tuple(max(1, n // divide) for n in shape["attention_head_dim"])
    unet = UNet2DConditionModel(
        cross_attention_dim=sum(widths), layers_per_block=2, norm_num_groups=32 // min(divide, 32), **shape
    )
    unet.half().save_pretrained(out / "unet")
    del unet
    _vae(out / "vae", min(divide, 8), 0.13025 if second else 0.18215)
    _text(out / "text_encoder", widths[0], 12, max(1, 12 // divide), None)
    _tokenizer(out / "tokenizer")
    if second:
        _text(out / "text_encoder_2", widths[1], 32, max(1, 20 // divide), widths[1])
        _tokenizer(out / "tokenizer_2")
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    DDIMScheduler(**schedule, clip_sample=False, timestep_spacing="trailing").save_pretrained(out / "scheduler")
    _light_decoder(out / "light_decoder", divide)
    _teacher(out / "teacher")
    _index(out, "StableDiffusionXLPipeline" if second else "StableDiffusionPipeline", second)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("sd15", "sdxl"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--divide", type=int, default=1, help="divide every width by this")
    given = parser.parse_args()
    write_model(given.kind, given.out, given.divide)
