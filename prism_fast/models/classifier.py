"""Classifiers by timm name, from a directory or a checkpoint file: teachers, students and feature networks alike."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from prism_fast.errors import DataError, InputError
from prism_fast.models.classifier_config import ClassifierConfig, Description, describe
from prism_fast.models.classifier_weights import CHECKPOINTS, State, conversion, fit, read_weights
from prism_fast.models.json_object import read_object
from prism_fast.models.pretrained import pretrained_network
from prism_fast.models.transformers_classifier import is_transformers, load_transformers, outline_transformers
from prism_fast.storage.files import building, replace

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "create_network",
    "load_classifier",
    "outline_classifier",
    "require_input_size",
    "save_classifier",
]

_SIDECAR = (
    '{"architecture": "resnet50", "num_classes": 1000, "image_size": 224, "mean": [0.485, 0.456, 0.406], '
    '"std": [0.229, 0.224, 0.225]}'
)


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


def create_network(architecture: str, num_classes: int, image_size: int, **options: Any) -> nn.Module:
    """A timm network with fresh weights; one that would refuse images of ``image_size`` (ViT) is made for them.

    Raises:
        InputError: timm knows no such architecture, or it cannot be made so.
    """
    sized = {"img_size": image_size} if _needs_size(architecture, image_size, options) else {}
    try:
        return _create(architecture, num_classes, **sized, **options)
    except (AssertionError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{architecture} cannot be made for {num_classes} classes and images of {image_size} pixels: {first}"
        ) from error


def _needs_size(architecture: str, image_size: int, options: Mapping[str, Any]) -> bool:
    """Whether the network must be told its size: many that are made for one take all."""
    if _fixed_side(architecture) in (None, image_size) or "img_size" in options:
        return False
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _refusal(_create(architecture, 1).eval(), image_size) is not None


def _create(architecture: str, num_classes: int, **options: Any) -> nn.Module:
    net: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=num_classes, **options)
    return net


def _fixed_side(architecture: str) -> int | None:
    """The image size that timm's network is made for unless told, if it takes no other."""
    if not timm.is_model(architecture):
        raise InputError(f"timm knows no architecture {architecture!r}")
    try:
        known: Any = timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:  # an unknown tag
        raise InputError(f"architecture {architecture!r}: {str(error).splitlines()[0]}") from error
    return int(known.input_size[1]) if known is not None and known.fixed_input_size else None


def require_input_size(classifier: Classifier, size: int, key: str) -> None:
    """Refuse to show a network of fixed size (ViT) images of another; ``key`` is what set it.

    A network of another size than ``size`` is tried on one image.

    Raises:
        InputError: it does not take them.
    """
    own = classifier.config.image_size
    if size != own and (reason := _refusal(classifier.net, size)):
        raise InputError(
            f"{key} is {size}, which {classifier.config.architecture} of {own} pixels does not take ({reason}); set it "
            f"to {own}"
        )


@torch.no_grad()
def _refusal(net: nn.Module, size: int) -> str | None:
    """Why a network does not take images of this size, None if it does."""
    try:
        net(torch.zeros(1, 3, size, size, device=next(net.parameters()).device))
    except Exception as error:  # each architecture raises what its first layer that minds raises
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def save_classifier(net: nn.Module, config: ClassifierConfig, out: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write ``config.json`` and ``model.safetensors``, each whole or not at all; integer buffers keep their type.

    Raises:
        OSError: the disk refused, or there is a pipe or a device in the place of one.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = {k: (v.to(dtype) if v.is_floating_point() else v).contiguous().clone() for k, v in net.state_dict().items()}
    replace(out / "config.json", (config.model_dump_json(indent=2) + "\n").encode())
    with building(out / "model.safetensors") as staged:
        save_file(state, staged)
        shutil.copymode(out / "config.json", staged)  # safetensors makes it 0600
    return out


def outline_classifier(name_or_path: str) -> Classifier:
    """The same architecture without weights, on the meta device: for counting.

    Raises:
        DataError: what describes it is missing or wrong. InputError: neither a directory, a file nor a timm name.
    """
    path = Path(name_or_path).expanduser()
    if not path.is_dir() and not path.is_file():
        _require_name(name_or_path)
        with torch.device("meta"):
            named: nn.Module = timm.create_model(name_or_path, pretrained=False)
        return _finished(named, _config_of(name_or_path, named))
    found = _described(path)
    if isinstance(found, dict):
        return _finished(*outline_transformers(path, found))
    with torch.device("meta"):
        return _finished(_made(found, path), found.config)


def load_classifier(name_or_path: str) -> Classifier:
    """A classifier directory or checkpoint file, or a timm model name with its pretrained weights.

    A directory holds ``config.json`` and ``model.safetensors`` as :func:`save_classifier` writes them, as timm's models
    lie on the hub, or as transformers saves an image classifier. A checkpoint file (``.safetensors``, ``.pth``,
    ``.pt``) has such a ``config.json`` beside it.

    Raises:
        DataError: the directory or file is incomplete or its weights do not fit.
        InputError: neither a directory, a file nor a timm name, or its pretrained weights cannot be had.
    """
    path = Path(name_or_path).expanduser()
    if not path.is_dir() and not path.is_file():
        _require_name(name_or_path)
        net = pretrained_network(name_or_path)
        return _finished(net, _config_of(name_or_path, net))
    found = _described(path)
    if isinstance(found, dict):
        return _finished(*load_transformers(path, found))
    return _finished(_filled(found, path, _weights(path)), found.config)


def _finished(net: nn.Module, config: ClassifierConfig) -> Classifier:
    return Classifier(net.eval().requires_grad_(False), config)


def _require_name(name: str) -> None:
    try:
        known = timm.is_model(name)
    except ValueError:  # timm takes it for an address
        known = False
    if not known:
        raise InputError(f"classifier {name!r} is neither a directory nor a timm model name")


def _described(path: Path) -> Description | dict[str, Any]:
    """What ``config.json`` says; transformers' document as it is, for transformers reads it itself."""
    if path.is_dir():
        try:
            document = read_object(path / "config.json")
        except FileNotFoundError as error:
            raise DataError(f"{path} is not a classifier directory: config.json is missing") from error
        return document if is_transformers(document) else describe(path / "config.json")
    if path.suffix not in CHECKPOINTS:
        raise DataError(f"{path} is no classifier; expected a directory, or a file ending in {', '.join(CHECKPOINTS)}")
    try:
        return describe(path.with_name("config.json"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not say which network it is of; write config.json beside it, as {_SIDECAR}"
        ) from error


def _weights(path: Path) -> State:
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        return read_weights(file)
    except FileNotFoundError as error:
        pickle = path / "pytorch_model.bin"
        if pickle.is_file():
            raise DataError(
                f"{path} holds pytorch_model.bin, a pickle; convert it once with: {conversion(pickle)}"
            ) from error
        raise DataError(f"{path} is not a classifier directory: {file.name} is missing") from error


def _made(found: Description, path: Path, **more: Any) -> nn.Module:
    config = found.config
    try:
        return create_network(config.architecture, config.num_classes, config.image_size, **found.options, **more)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _filled(found: Description, path: Path, state: State) -> nn.Module:
    """The network with its weights, which may be of its images' size where it takes any."""
    architecture, size = found.config.architecture, found.config.image_size
    net = _made(found, path)
    try:
        fit(net, state, path, architecture)
    except DataError as error:
        if _fixed_side(architecture) in (None, size) or "img_size" in found.options:
            raise
        try:
            net = _made(found, path, img_size=size)
            fit(net, state, path, architecture)
        except InputError:
            raise error from None
    return net


def _config_of(name: str, net: Any) -> ClassifierConfig:
    data = timm.data.resolve_model_data_config(net)
    return ClassifierConfig(
        architecture=name,
        num_classes=net.num_classes,
        image_size=data["input_size"][1],
        mean=data["mean"],
        std=data["std"],
        crop_pct=data["crop_pct"],
        interpolation=data["interpolation"],
        crop_mode=data["crop_mode"],
        tag=net.pretrained_cfg.get("tag") or None,
    )
