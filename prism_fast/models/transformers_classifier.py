"""Image classifiers of transformers, as networks that give logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from prism_fast.errors import DataError
from prism_fast.models.classifier_config import ClassifierConfig, validated
from prism_fast.models.classifier_weights import conversion
from prism_fast.models.json_object import read_object

_PIXELS = "preprocessor_config.json"


class Logits(nn.Module):
    """``pixels -> logits`` of a network whose output has more than these."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Shapes: pixels (n, 3, s, s); returns (n, classes)."""
        logits: torch.Tensor = self.net(pixel_values=pixels).logits
        return logits


def is_transformers(document: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a transformers model; timm's models on the hub can be read as both."""
    return "model_type" in document and "pretrained_cfg" not in document


def load_transformers(path: Path, document: dict[str, Any]) -> tuple[nn.Module, ClassifierConfig]:
    """Network and configuration of a directory that transformers saved.

    Raises:
        DataError: it is no image classifier, lacks weights, or says of its pixels what is not supported.
    """
    from transformers import AutoModelForImageClassification

    config = _config(path, document)
    pickle = path / "pytorch_model.bin"
    if pickle.is_file() and not any(path.glob("*.safetensors")):
        raise DataError(f"{path} holds pytorch_model.bin, a pickle; convert it once with: {conversion(pickle)}")
    try:
        net, info = AutoModelForImageClassification.from_pretrained(
            path, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # transformers raises many types for broken files
        raise DataError(f"{path} cannot be loaded: {(str(error).splitlines() or [''])[0]}") from error
    if missing := sorted(info["missing_keys"]):  # filled with random numbers
        raise DataError(f"{path}: its weights lack {len(missing)} tensors, the first is {missing[0]}")
    return Logits(net), config


def outline_transformers(path: Path, document: dict[str, Any]) -> tuple[nn.Module, ClassifierConfig]:
    """The same without weights, on the meta device.

    Raises:
        DataError: as :func:`load_transformers`; weights need not be there.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    config = _config(path, document)
    try:
        settings = AutoConfig.from_pretrained(path, local_files_only=True)
        with torch.device("meta"):
            return Logits(AutoModelForImageClassification.from_config(settings)), config
    except Exception as error:  # transformers raises many types for broken files
        raise DataError(f"{path} cannot be read: {(str(error).splitlines() or [''])[0]}") from error


def _config(path: Path, document: dict[str, Any]) -> ClassifierConfig:
    architectures = document.get("architectures") or ["nothing"]
    if "ForImageClassification" not in str(architectures[0]):
        raise DataError(f"{path}/config.json is of {architectures[0]}; expected an image classifier")
    file = path / _PIXELS
    try:
        pixels = read_object(file)
    except FileNotFoundError as error:
        raise DataError(f"{path} is not a classifier directory: {_PIXELS} is missing") from error
    names = _names(document)
    found = {
        "architecture": architectures[0],
        "num_classes": len(names) or document.get("num_labels", 2),  # transformers' default, which it does not write
        "image_size": _side(file, pixels),
        **_normalisation(file, pixels),
        "label_names": None if not names or names[0] == "LABEL_0" else names,
    }
    return validated(file, {key: value for key, value in found.items() if value is not None})


def _names(document: dict[str, Any]) -> list[str]:
    names = document.get("id2label")
    return [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, dict) else []


def _side(file: Path, pixels: dict[str, Any]) -> int:
    """What the network gets: the crop's side where it is cropped, else the size."""
    cropped = pixels.get("crop_size") is not None and pixels.get("do_center_crop") is not False
    size = pixels.get("crop_size" if cropped else "size")
    if isinstance(size, dict):
        sides = {size[key] for key in ("height", "width", "shortest_edge") if size.get(key)}
        size = sides.pop() if len(sides) == 1 else size
    if not isinstance(size, int):
        raise DataError(f"{file} says size {size!r}; expected a square")
    return size


def _normalisation(file: Path, pixels: dict[str, Any]) -> dict[str, Any]:
    factor = pixels.get("rescale_factor", 1 / 255)
    if pixels.get("do_rescale") is False or pixels.get("rescale_offset") or abs(factor * 255 - 1) > 1e-3:
        raise DataError(f"{file} rescales pixels by {factor!r}; expected 1/255 without an offset")
    if pixels.get("do_normalize") is False:
        return {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    for key in ("image_mean", "image_std"):
        if pixels.get(key) is None:
            raise DataError(f"{file} lacks {key!r}; expected three numbers")
    return {"mean": pixels["image_mean"], "std": pixels["image_std"]}
