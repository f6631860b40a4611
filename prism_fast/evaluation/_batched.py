"""Run a network over stored uint8 pictures, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prism_fast.errors import InputError, RunError
from prism_fast.models.at_once import at_once


def check_images(images: Tensor, batch_size: int) -> None:
    """Refuse anything but a non-empty uint8 (n, 3, h, w) tensor and a positive batch size."""
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise InputError(
            f"images must be uint8 with shape (n, 3, height, width), got {images.dtype} {tuple(images.shape)}"
        )
    if len(images) == 0:
        raise InputError("there are no images to evaluate")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")


@contextmanager
def _evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model on the device and in eval mode; every submodule's mode is put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.to(device).eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _forward(
    model: nn.Module,
    forward: Callable[[Tensor], Tensor],
    batch: Tensor,
    prepare: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Tensor:
    with torch.inference_mode():
        out = forward(prepare(batch.to(device).float() / 255))
    if out.ndim != 2 or len(out) != len(batch):
        raise RunError(f"{type(model).__name__} gave shape {tuple(out.shape)} for {len(batch)} images")
    return out.float().cpu().clone()


def _require_finite(model: nn.Module, result: Tensor) -> None:
    if not bool(result.isfinite().all()):
        bad = int((~result.isfinite()).any(dim=1).sum())
        raise RunError(f"{type(model).__name__} gave NaN or infinity for {bad} of {len(result)} images")


def run_batched(
    model: nn.Module,
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    prepare: Callable[[Tensor], Tensor],
    batch_size: int,
    device: str | torch.device,
) -> Tensor:
    """``forward(prepare(images / 255))`` for all images, as one float32 tensor on the CPU.

    Shapes:
        images (n, 3, h, w) uint8 -> (n, d).

    Raises:
        InputError: wrong shape or dtype, no images.
        RunError: the network answered with a wrong shape, NaN or infinity.
    """
    check_images(images, batch_size)
    target = torch.device(device)
    with _evaluating(model, target):
        parts = images.split(at_once(target, batch_size))
        result = torch.cat([_forward(model, forward, part, prepare, target) for part in parts])
    _require_finite(model, result)
    return result


def stream_logits(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    prepare: Callable[[Tensor], Tensor],
    device: str | torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """``model(prepare(images / 255))`` and the labels of one batch after the other, on the CPU; keeps none of them.

    Raises:
        RunError: the network answered with a wrong shape, NaN or infinity.
    """
    target = torch.device(device)
    with _evaluating(model, target):
        for images, labels in batches:
            parts = images.split(at_once(target, len(images)))
            logits = torch.cat([_forward(model, model, part, prepare, target) for part in parts])
            _require_finite(model, logits)
            yield logits, labels
