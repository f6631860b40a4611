"""Distillation as one would write it: a torch Dataset and DataLoader, a live teacher, KL, AdamW; by hand, or by timm.

Nothing in it is slower than it has to be: a worker process a core that stays, batches fetched ahead, pinned memory,
channels-last networks and pictures, no number read back before the end.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from benchmarks.split import Split
from prism_fast.config import DistillConfig
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.models.classifier import Classifier
from prism_fast.models.resize import resized

LossOf = Callable[[Tensor, Tensor], Tensor]
_AHEAD = 4


class Pictures(Dataset[tuple[Tensor, int]]):
    """Decoded and transformed pictures with their classes: their bytes lie uncompressed in the tars."""

    def __init__(self, shards: ShardSet, transform: Callable[[Image.Image], Tensor]) -> None:
        self.transform = transform
        self.places: list[tuple[Path, int, int, int]] = []
        for shard in shards.shards:
            with shard.open() as reader:
                for entry in shard.entries():
                    self.places.append((shard.tar, entry.image.offset, entry.image.size, reader.label(entry)))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        tar, offset, size, label = self.places[number]
        with tar.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        with Image.open(io.BytesIO(data)) as picture:
            return self.transform(picture.convert("RGB")), label


def batches(
    shards: ShardSet, recipe: DistillConfig, teacher: Classifier, device: torch.device
) -> Iterator[list[Tensor]]:
    """Shuffled batches; workers do not stop between epochs, and read ahead beyond the last step as before the first."""
    steps = [
        v2.RandomResizedCrop(recipe.image_size, recipe.crop_scale, antialias=True),
        v2.RandomHorizontalFlip(0.5 if recipe.flip else 0.0),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(teacher.config.mean, teacher.config.std),
    ]
    pictures, generator = Pictures(shards, v2.Compose(steps)), torch.Generator().manual_seed(recipe.seed)
    workers = len(os.sched_getaffinity(0))
    wanted = (recipe.steps + _AHEAD * workers) * recipe.batch_size
    loader = DataLoader(
        pictures,
        recipe.batch_size,
        sampler=RandomSampler(pictures, num_samples=wanted, generator=generator),
        num_workers=workers,
        prefetch_factor=_AHEAD,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        generator=generator,
    )
    return iter(loader)


class Teacher(nn.Module):
    """A classifier that is shown a student's pictures; timm's task reads what they were normalised by."""

    def __init__(self, teacher: Classifier) -> None:
        super().__init__()
        self.net, self.size = teacher.net, teacher.config.image_size
        self.pretrained_cfg = {"mean": teacher.config.mean, "std": teacher.config.std}

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.net(resized(images, self.size, self.size))
        return found


def plain(student: nn.Module, teacher: Teacher, recipe: DistillConfig) -> LossOf:
    """The loss of a loop by hand."""
    t = recipe.temperature

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = F.log_softmax(teacher(images) / t, dim=1)
        found = F.log_softmax(student(images) / t, dim=1)
        return t**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)

    return loss


def by_timm(student: nn.Module, teacher: Teacher, recipe: DistillConfig) -> LossOf:
    """The same loss by timm's task: the hard label has no weight, but it is computed."""
    from timm.task import LogitDistillationTask

    student.pretrained_cfg = teacher.pretrained_cfg  # type: ignore[assignment]
    task = LogitDistillationTask(
        student,
        teacher,
        nn.CrossEntropyLoss(),
        distill_loss_weight=1.0,
        task_loss_weight=0.0,
        temperature=recipe.temperature,
        device=next(student.parameters()).device,
        verbose=False,
    ).train()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = task(images, labels)["loss"]
        return found

    return loss


def train(
    student: nn.Module, loss_of: LossOf, source: Iterator[list[Tensor]], recipe: DistillConfig, split: Split
) -> Tensor:
    """All steps; the loss of each, (steps,), which nobody has waited for."""
    device = next(student.parameters()).device
    optimizer = torch.optim.AdamW(
        student.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True if device.type == "cuda" else None
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    half, losses = recipe.precision != "float32", list[Tensor]()
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    for _ in range(recipe.steps):
        images, labels = split.load(partial(_take, source, device))
        split.images += len(labels)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, getattr(torch, recipe.precision) if half else torch.bfloat16, enabled=half):
            loss = loss_of(images, labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(student.parameters(), recipe.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        losses.append(loss.detach())
    split.end()
    return torch.stack(losses)


def _take(source: Iterator[list[Tensor]], device: torch.device) -> tuple[Tensor, Tensor]:
    images, labels = next(source)
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return images, labels.to(device, non_blocking=True)
