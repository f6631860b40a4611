"""The network whose gradient steers sampling: decode → view → normalise → teacher."""

from __future__ import annotations

from typing import Any

import torch
from prism_engines.backends.eager import EagerGradientEngine, EnergyAndCotangent
from prism_kernels import energy, view
from torch import nn

from prism_fast.config import GuidanceConfig
from prism_fast.guidance.objectives import objective_of
from prism_fast.guidance.view import WholeView, apply_view
from prism_fast.models.classifier import Classifier

#: Below any gradient that float32 holds with all its digits.
_TINY = 1e-30


class _LeaveHalf(torch.autograd.Function):
    """Half-precision images as float32; backward, their gradient is brought to size one before it is rounded."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, sizes: list[torch.Tensor]) -> torch.Tensor:
        ctx.dtype, ctx.sizes = images.dtype, sizes
        return images.float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        size = gradient.square().flatten(1).mean(1).sqrt().clamp_min(_TINY).view(-1, 1, 1, 1)
        ctx.sizes.append(size)
        return (gradient / size).to(ctx.dtype), None


class _EnterHalf(torch.autograd.Function):
    """Float32 latents in half precision; backward, their gradient gets its size back."""

    @staticmethod
    def forward(ctx: Any, latents: torch.Tensor, dtype: torch.dtype, sizes: list[torch.Tensor]) -> torch.Tensor:
        ctx.sizes = sizes
        return latents.to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient.float() * ctx.sizes.pop(), None, None


class HalfDecoder(nn.Module):
    """A decoder of another type than float32, as the float32 world around it calls it: float32 in and out.

    The gradient of a confident sample is smaller than what float16 can tell from zero. So what goes back through the
    decoder is divided by its root mean square, sample by sample, and the result is multiplied by it in float32.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """The decoded images."""
        sizes: list[torch.Tensor] = []
        entered = _EnterHalf.apply(latents, dtype_of(self.decoder), sizes)
        images: torch.Tensor = _LeaveHalf.apply(self.decoder(entered), sizes)
        return images


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of a network's weights."""
    return next(module.parameters()).dtype


def in_float32(decoder: nn.Module) -> nn.Module:
    """A decoder that takes and gives float32: itself, if that is the type of its weights."""
    return decoder if dtype_of(decoder) == torch.float32 else HalfDecoder(decoder)


class LatentClassifier(nn.Module):
    """Teacher logits (n, classes) of latents (n, c, h, w), each seen through its box (n, 5)."""

    def __init__(self, decoder: nn.Module, teacher: Classifier, size: int) -> None:
        super().__init__()
        self.decoder, self.net, self.size = in_float32(decoder), teacher.net, size
        device = next(teacher.net.parameters()).device
        mean, std = (torch.tensor(values, device=device) for values in (teacher.config.mean, teacher.config.std))
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, latents: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Logits of the decoded, viewed, normalised image; on a GPU view and normalisation are one kernel."""
        seen = view(self.decoder(latents), boxes, self.size, self.get_buffer("scale"), self.get_buffer("shift"))
        logits: torch.Tensor = self.net(seen)
        return logits


def _keep_normalisation(module: nn.Module, teacher: Classifier) -> None:
    """The teacher's mean and deviation as buffers: a constant made at every call would be a copy that is waited for."""
    device = next(teacher.net.parameters()).device
    for name, values in (("mean", teacher.config.mean), ("std", teacher.config.std)):
        module.register_buffer(name, torch.tensor(values, device=device).view(1, 3, 1, 1), persistent=False)


def _normalise(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] as the teacher takes them: what :meth:`Classifier.normalise` computes."""
    return (images - module.get_buffer("mean")) / module.get_buffer("std")


class StaticLatentClassifier(nn.Module):
    """The same for tracing: views are given as matrices, so that the graph holds matrix products alone."""

    def __init__(self, decoder: nn.Module, teacher: Classifier) -> None:
        super().__init__()
        self.decoder, self.net = decoder, teacher.net
        _keep_normalisation(self, teacher)

    def forward(self, latents: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Logits of the decoded, viewed, normalised image."""
        images = self.decoder(latents).to(rows.dtype)  # traced in half precision, a decoder may still give float32
        logits: torch.Tensor = self.net(_normalise(self, apply_view(images, rows, columns)))
        return logits


class ImageClassifier(nn.Module):
    """Teacher logits (n, classes) of whole images in [0, 1], (n, 3, h, w)."""

    def __init__(self, teacher: Classifier, size: tuple[int, int]) -> None:
        super().__init__()
        self.net = teacher.net
        _keep_normalisation(self, teacher)
        self.view = WholeView(size, teacher.config.image_size).to(next(teacher.net.parameters()).device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the resized, normalised image."""
        logits: torch.Tensor = self.net(_normalise(self, self.view(images)))
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
