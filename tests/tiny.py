"""Tiny random models in the real formats: a diffusers directory and a classifier directory."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import BertConfig, BertModel, BertTokenizer

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
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    ).save_pretrained(path / "vae")
    UNet2DConditionModel(
        sample_size=8,
        in_channels=unet_channels,
        out_channels=unet_channels,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    ).save_pretrained(path / "unet")
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


def write_config(folder: Path, **sections: object) -> Path:
    """Models, a three-class label space and a run configuration that uses them; returns the configuration's path."""
    import yaml

    make_diffusion(folder / "diffusion")
    make_teacher(folder / "teacher")
    (folder / "labels.yaml").write_text(
        yaml.safe_dump({"name": "pets", "classes": [{"name": n} for n in ("cat", "dog", "red")]})
    )
    document = {
        "name": "tiny",
        "labels": str(folder / "labels.yaml"),
        "models": {"diffusion": str(folder / "diffusion"), "teacher": str(folder / "teacher")},
        "prompts": {"templates": ["a {style} style emoji of {content}"], "styles": ["noto", "blue"]},
        "sampling": {"steps": 4, "batch_size": 4, "height": 16, "width": 16},
        "synthesis": {"images": 10, "shard_size": 4},
        **sections,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
