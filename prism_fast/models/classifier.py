"""Classifiers by timm name or from a directory: teachers, students and feature networks alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from prism_fast.errors import DataError, InputError


class ClassifierConfig(BaseModel):
    """``config.json`` beside a classifier's weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Classifier:
    """A timm network with what its pixels must look like."""

    net: nn.Module
    config: ClassifierConfig

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1], (n, 3, s, s), to the network's input."""
        mean = images.new_tensor(self.config.mean).view(1, 3, 1, 1)
        std = images.new_tensor(self.config.std).view(1, 3, 1, 1)
        return (images - mean) / std

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] of any size: resized to the network's size (antialiased bilinear), then normalised."""
        size = (self.config.image_size,) * 2
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self.normalise(images)

    @torch.no_grad()
    def logits(self, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
        """Logits (n, classes), float32, of uint8 images (n, 3, h, w)."""
        parts = [self.net(self.prepare(part.float() / 255)).float() for part in images.split(batch_size)]
        return torch.cat(parts)


def _build(config: ClassifierConfig, where: str, **extra: Any) -> nn.Module:
    try:
        net: nn.Module = timm.create_model(config.architecture, num_classes=config.num_classes, **extra)
    except RuntimeError as error:
        raise InputError(f"{where}: timm knows no architecture {config.architecture!r}") from error
    return net


def save_classifier(net: nn.Module, config: ClassifierConfig, out: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write ``config.json`` and ``model.safetensors``; integer buffers keep their type."""
    out.mkdir(parents=True, exist_ok=True)
    state = {k: (v.to(dtype) if v.is_floating_point() else v).contiguous().clone() for k, v in net.state_dict().items()}
    save_file(state, out / "model.safetensors")
    (out / "config.json").write_text(config.model_dump_json(indent=2) + "\n")
    return out


def _missing(path: Path) -> str:
    """The first absent file; safetensors' FileNotFoundError does not name it."""
    return next((n for n in ("config.json", "model.safetensors") if not (path / n).exists()), "a file")


def outline_classifier(name_or_path: str) -> Classifier:
    """The same architecture without weights, on the meta device: for counting.

    Raises:
        DataError: the directory's ``config.json`` is missing or wrong. InputError: neither a directory nor a timm name.
    """
    file = Path(name_or_path) / "config.json"
    if file.parent.is_dir():
        try:
            config = ClassifierConfig.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(f"{file} is not a classifier's: {str(error).splitlines()[0]}") from error
        with torch.device("meta"):
            return Classifier(_build(config, name_or_path).eval().requires_grad_(False), config)
    if not timm.is_model(name_or_path):
        raise InputError(f"classifier {name_or_path!r} is neither a directory nor a timm model name")
    with torch.device("meta"):
        net: nn.Module = timm.create_model(name_or_path, pretrained=False).eval().requires_grad_(False)
    return Classifier(net, _config_of(name_or_path, net))


def _config_of(name: str, net: Any) -> ClassifierConfig:
    data = timm.data.resolve_model_data_config(net)
    return ClassifierConfig(
        architecture=name,
        num_classes=net.num_classes,
        image_size=data["input_size"][1],
        mean=data["mean"],
        std=data["std"],
    )


def _from_directory(path: Path) -> Classifier:
    try:
        config = ClassifierConfig.model_validate(json.loads((path / "config.json").read_text()))
        state = load_file(path / "model.safetensors")
    except FileNotFoundError as error:
        raise DataError(f"{path} is not a classifier directory: {_missing(path)} is missing") from error
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}/config.json is not a classifier's: {str(error).splitlines()[0]}") from error
    except Exception as error:  # safetensors raises its own type, which is not exported as a stable name
        raise DataError(f"{path}/model.safetensors cannot be read: {error}") from error
    net = _build(config, str(path))
    try:
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        raise DataError(
            f"{path}: weights do not fit {config.architecture}: {str(error).splitlines()[1].strip()}"
        ) from error
    return Classifier(net.eval().requires_grad_(False), config)


def load_classifier(name_or_path: str) -> Classifier:
    """A classifier directory, or a timm model name with its pretrained weights.

    Raises:
        DataError: the directory is incomplete or its weights do not fit.
        InputError: neither a directory nor a timm name, or its pretrained weights cannot be had.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return _from_directory(path)
    if not timm.is_model(name_or_path):
        raise InputError(f"classifier {name_or_path!r} is neither a directory nor a timm model name")
    try:
        net: nn.Module = timm.create_model(name_or_path, pretrained=True).eval().requires_grad_(False)
    except Exception as error:  # hub and network errors of several libraries
        raise InputError(
            f"timm could not get pretrained weights of {name_or_path!r}; give a directory instead"
        ) from error
    return Classifier(net, _config_of(name_or_path, net))
