"""Classifiers by timm name, from a directory or a checkpoint file: teachers, students and feature networks alike."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from prism_fast.errors import DataError, InputError
from prism_fast.models.architecture import create_network, fixed_side, refusal
from prism_fast.models.at_once import at_once
from prism_fast.models.classifier_config import ClassifierConfig, Description, describe
from prism_fast.models.classifier_weights import CHECKPOINTS, State, conversion, fit, read_shapes, read_weights
from prism_fast.models.json_object import read_object
from prism_fast.models.pretrained import pretrained_network
from prism_fast.models.resize import resized
from prism_fast.models.structure.build import Shapes, build
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
    """A timm network with what its pixels must look like, and timm's arguments for it besides its name and size."""

    net: nn.Module
    config: ClassifierConfig
    options: Mapping[str, Any] = field(default_factory=dict)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1], (n, 3, s, s), to the network's input."""
        mean = images.new_tensor(self.config.mean).view(1, 3, 1, 1)
        std = images.new_tensor(self.config.std).view(1, 3, 1, 1)
        return (images - mean) / std

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] of any size: resized to the network's size (antialiased bilinear), then normalised."""
        size = self.config.image_size
        return self.normalise(resized(images, size, size))

    @torch.no_grad()
    def logits(self, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
        """Logits (n, classes), float32, of uint8 images (n, 3, h, w)."""
        rows = at_once(images.device, batch_size)
        parts = [self.net(self.prepare(part.float() / 255)).float() for part in images.split(rows)]
        return torch.cat(parts)


def require_input_size(classifier: Classifier, size: int, key: str) -> None:
    """Refuse to show a network of fixed size (ViT) images of another; ``key`` is what set it.

    A network of another size than ``size`` is tried on one image.

    Raises:
        InputError: it does not take them.
    """
    own = classifier.config.image_size
    if size != own and (reason := refusal(classifier.net, size)):
        raise InputError(
            f"{key} is {size}, which {classifier.config.architecture} of {own} pixels does not take ({reason}); set it "
            f"to {own}"
        )


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
    structure = found.config.structure
    shapes = read_shapes(_file(path)) if structure is not None and structure.width < 1 else None
    with torch.device("meta"):
        return _finished(_made(found, path, shapes), found.config, found.options)


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
    return _finished(_filled(found, path, _weights(path)), found.config, found.options)


def _finished(net: nn.Module, config: ClassifierConfig, options: Mapping[str, Any] | None = None) -> Classifier:
    return Classifier(net.eval().requires_grad_(False), config, options or {})


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


def _file(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


def _weights(path: Path) -> State:
    file = _file(path)
    try:
        return read_weights(file)
    except FileNotFoundError as error:
        pickle = path / "pytorch_model.bin"
        if pickle.is_file():
            raise DataError(
                f"{path} holds pytorch_model.bin, a pickle; convert it once with: {conversion(pickle)}"
            ) from error
        raise DataError(f"{path} is not a classifier directory: {file.name} is missing") from error


def _made(found: Description, path: Path, shapes: Shapes | None = None, **more: Any) -> nn.Module:
    config = found.config
    try:
        if config.structure is None:
            return create_network(config.architecture, config.num_classes, config.image_size, **found.options, **more)
        return build(config.architecture, config.num_classes, config.image_size, config.structure, shapes)
    except InputError as error:
        kind = InputError if config.structure is None else DataError
        raise kind(f"{path}: {error}") from error


def _filled(found: Description, path: Path, state: State) -> nn.Module:
    """The network with its weights, which may be of its images' size where it takes any."""
    architecture, size = found.config.architecture, found.config.image_size
    net = _made(found, path, {name: value.shape for name, value in state.items()})
    try:
        fit(net, state, path, architecture)
    except DataError as error:
        if (
            found.config.structure is not None
            or fixed_side(architecture) in (None, size)
            or "img_size" in found.options
        ):
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
