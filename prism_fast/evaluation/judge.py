"""The network in whose features precision and recall are measured; not the one that guides."""

from __future__ import annotations

from dataclasses import dataclass

from prism_fast.config import ModelsConfig
from prism_fast.errors import InputError
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.models.efficientnet import efficientnet_lite

_BUNDLED_SIZE = 128


@dataclass(frozen=True)
class Judge:
    """A network, and how a report calls it."""

    network: Classifier
    name: str


def load_judge(models: ModelsConfig) -> Judge:
    """What ``models.features`` names: ``minis`` is EfficientNet-Lite1 with ImageNet weights.

    Raises:
        DataError: a directory that is no classifier's. InputError: it is the teacher, neither a directory nor a timm
            name, or the package with the bundled weights is not installed.
    """
    features = models.features
    if features == models.teacher != "minis":
        raise InputError(
            f"models.features is {features}, the teacher that guides; precision and recall need a network that did not"
        )
    if features == "minis":
        return Judge(efficientnet_lite(1, _BUNDLED_SIZE), f"EfficientNet-Lite1, ImageNet weights, {_BUNDLED_SIZE} px")
    network = load_classifier(features)
    return Judge(network, f"{network.config.architecture}, {network.config.image_size} px")
