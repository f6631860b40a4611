"""The network whose gradient steers sampling: decode → view → normalise → teacher."""

from __future__ import annotations

import torch
from prism_engines.backends.eager import EagerGradientEngine, EnergyAndCotangent
from prism_kernels import energy, view
from torch import nn

from prism_fast.config import GuidanceConfig
from prism_fast.guidance.objectives import objective_of
from prism_fast.guidance.view import WholeView, apply_view
from prism_fast.models.classifier import Classifier


class LatentClassifier(nn.Module):
    """Teacher logits (n, classes) of latents (n, c, h, w), each seen through its box (n, 5)."""

    def __init__(self, decoder: nn.Module, teacher: Classifier, size: int) -> None:
        super().__init__()
        self.decoder, self.net, self.size = decoder, teacher.net, size
        device = next(teacher.net.parameters()).device
        mean, std = (torch.tensor(values, device=device) for values in (teacher.config.mean, teacher.config.std))
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, latents: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Logits of the decoded, viewed, normalised image; on a GPU view and normalisation are one kernel."""
        seen = view(self.decoder(latents), boxes, self.size, self.get_buffer("scale"), self.get_buffer("shift"))
        logits: torch.Tensor = self.net(seen)
        return logits


class StaticLatentClassifier(nn.Module):
    """The same for tracing: views are given as matrices, so that the graph holds matrix products alone."""

    def __init__(self, decoder: nn.Module, teacher: Classifier) -> None:
        super().__init__()
        self.decoder, self.net, self.teacher = decoder, teacher.net, teacher

    def forward(self, latents: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Logits of the decoded, viewed, normalised image."""
        logits: torch.Tensor = self.net(self.teacher.normalise(apply_view(self.decoder(latents), rows, columns)))
        return logits


class ImageClassifier(nn.Module):
    """Teacher logits (n, classes) of whole images in [0, 1], (n, 3, h, w)."""

    def __init__(self, teacher: Classifier, size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.teacher = teacher.net, teacher
        self.view = WholeView(size, teacher.config.image_size).to(next(teacher.net.parameters()).device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the resized, normalised image."""
        logits: torch.Tensor = self.net(self.teacher.normalise(self.view(images)))
        return logits


def energy_of(config: GuidanceConfig) -> EnergyAndCotangent:
    """The configured objective as ``(logits, labels) -> (energy, dE/dlogits)``."""
    form = objective_of(config)

    def value_and_cotangent(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return energy(logits, labels, form.class_weight, form.lse_weight, form.temperature)

    return value_and_cotangent


def energy_gradient_engine(decoder: nn.Module, teacher: Classifier, config: GuidanceConfig) -> EagerGradientEngine:
    """Eager engine of ``(latents, labels, boxes) -> (energy, gradient, logits)``."""
    size = config.view_size or teacher.config.image_size
    return EagerGradientEngine(LatentClassifier(decoder, teacher, size), energy_of(config))
