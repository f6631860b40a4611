"""Tiny random networks of diffusers, and models in the real formats: diffusers and classifier directories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, BertTokenizer, ViTConfig, ViTForImageClassification

from benchmarks.stub import write_labels
from prism_fast.models.classifier import ClassifierConfig, save_classifier

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "style", "emoji", "of", "noto", "cat", "dog", "red", "blue"]
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
    "text_encoder": ["transformers", "BertModel"],
    "tokenizer": ["transformers", "BertTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}


def unet(**changes: Any) -> UNet2DConditionModel:
    """Predicts 8×8 latents of four channels; looks at a text of width 16 in the deeper of its two levels."""
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**settings, **changes})


def autoencoder_tiny(channels: int = 4, levels: int = 2) -> AutoencoderTiny:
    """TAESD's kind: without norms; each level but the first doubles the size."""
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * levels,
        decoder_block_out_channels=(8,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
        latent_channels=channels,
    )


def autoencoder_kl(**changes: Any) -> AutoencoderKL:
    """Stable Diffusion's kind, of two levels and latents of four channels."""
    settings: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
    }
    return AutoencoderKL(**{**settings, **changes})


def use_autoencoder_kl(model: Path, **changes: Any) -> None:
    """Put such an autoencoder in the place of the one that ``model`` has."""
    torch.manual_seed(2)
    shutil.rmtree(model / "vae")
    autoencoder_kl(**changes).save_pretrained(model / "vae")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "vae": ["diffusers", "AutoencoderKL"]}))


def make_light_decoder(path: Path, channels: int = 4, levels: int = 2) -> Path:
    """A directory of an autoencoder whose decoder can steer in place of the model's own."""
    torch.manual_seed(1)
    autoencoder_tiny(channels, levels).save_pretrained(path)
    return path


def make_diffusion(path: Path, unet_channels: int = 4, prediction: str = "epsilon") -> Path:
    """16×16 images from 8×8 latents of four channels; random weights, fixed seed."""
    torch.manual_seed(0)
    path.mkdir(parents=True, exist_ok=True)
    (path / "model_index.json").write_text(json.dumps(INDEX))
    vocabulary = path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    BertTokenizer(vocab=str(vocabulary), model_max_length=8).save_pretrained(path / "tokenizer")
    BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=8,
        ),
        add_pooling_layer=False,
    ).save_pretrained(path / "text_encoder")
    autoencoder_tiny().save_pretrained(path / "vae")
    unet(in_channels=unet_channels, out_channels=unet_channels).save_pretrained(path / "unet")
    DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    ).save_pretrained(path / "scheduler")
    return path


def make_teacher(path: Path, classes: int = 3, size: int = 32) -> Path:
    """A random test-sized ResNet."""
    torch.manual_seed(1)
    net = timm.create_model("test_resnet", num_classes=classes)
    config = ClassifierConfig(
        architecture="test_resnet", num_classes=classes, image_size=size, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return save_classifier(net, config, path)


def make_timm_hub(path: Path, architecture: str = "test_resnet", size: int = 32, **more: Any) -> Path:
    """A classifier of three classes as timm's lie on the hub."""
    torch.manual_seed(1)
    fixed = {"img_size": size} if "vit" in architecture else {}
    net = timm.create_model(architecture, num_classes=3, **fixed)
    path.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path / "model.safetensors")
    pixels = {"input_size": [3, size, size], "mean": [0.4] * 3, "std": [0.2] * 3, "crop_pct": 0.9}
    document = {"architecture": architecture, "num_classes": 3, "num_features": 8, "pretrained_cfg": pixels, **more}
    (path / "config.json").write_text(json.dumps(document))
    return path


def make_transformers_classifier(path: Path, names: tuple[str, ...] = ("cat", "dog", "red"), **pixels: Any) -> Path:
    """A ViT of transformers for 32×32 images."""
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(names)),
        label2id={name: label for label, name in enumerate(names)},
    )
    ViTForImageClassification(config).save_pretrained(path)
    document = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, **pixels}
    (path / "preprocessor_config.json").write_text(json.dumps(document))
    return path


def write_config(folder: Path, **sections: object) -> Path:
    """Models, a three-class label space and a run configuration that uses them; returns the configuration's path."""
    make_diffusion(folder / "diffusion")
    make_teacher(folder / "teacher")
    document = {
        "name": "tiny",
        "labels": str(write_labels(folder)),
        "models": {"diffusion": str(folder / "diffusion"), "teacher": str(folder / "teacher")},
        "prompts": {"templates": ["a {style} style emoji of {content}"], "styles": ["noto", "blue"]},
        "sampling": {"steps": 4, "batch_size": 4, "height": 16, "width": 16},
        "synthesis": {"images": 10, "shard_size": 4},
        **sections,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
