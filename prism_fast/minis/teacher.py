"""Train the minis' teacher: EfficientNet-Lite0 from ImageNet weights, fine-tuned on four drawing styles."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from prism_fast.evaluation.pictures import Pictures
from prism_fast.models.classifier import Classifier, load_classifier, save_classifier
from prism_fast.models.efficientnet import efficientnet_lite

SIZE, BATCH, EPOCHS, HEAD_EPOCHS = 128, 32, 14, 4


def _augment() -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(0.5, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(10, translate=(0.05, 0.05), fill=1.0),
            v2.ColorJitter(0.3, 0.3, 0.3, 0.05),
            v2.RandomGrayscale(0.1),
        ]
    )


def accuracy(teacher: Classifier, pictures: Pictures) -> float:
    """Top-1 share on ``pictures``."""
    teacher.net.eval()
    return float((teacher.logits(pictures.images).argmax(1) == pictures.labels).float().mean())


def _freeze_norms(net: nn.Module) -> None:
    """Keep ImageNet's batch statistics: 1,100 pictures are too few to replace them."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def train_teacher(train: Pictures, val: Pictures, out: Path, log: Callable[[str], None] = print) -> Classifier:
    """Head first, then everything; the weight average of the best epoch on ``val`` is written to ``out``."""
    torch.manual_seed(0)
    teacher = efficientnet_lite(0, SIZE, int(train.labels.max()) + 1)
    net: Any = teacher.net
    augment = _augment()
    head = list(net.get_classifier().parameters())
    body = [p for p in net.parameters() if all(p is not h for h in head)]
    optimizer = torch.optim.AdamW([{"params": head, "lr": 3e-3}, {"params": body, "lr": 3e-4}], weight_decay=0.02)
    steps = EPOCHS * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-3, 3e-4], total_steps=steps, pct_start=0.2)
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98))
    best = -1.0
    for epoch in range(EPOCHS):
        _freeze_norms(net)
        for p in body:
            p.requires_grad_(epoch >= HEAD_EPOCHS)
        order = torch.randperm(len(train))
        for rows in order.split(BATCH)[: len(train) // BATCH]:
            x = torch.stack([augment(train.images[r].float() / 255) for r in rows])
            loss = F.cross_entropy(net(teacher.normalise(x)), train.labels[rows], label_smoothing=0.05)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            average.update_parameters(net)
        candidate = Classifier(average.module, teacher.config)
        score = accuracy(candidate, val)
        log(f"teacher: epoch {epoch + 1}/{EPOCHS}, loss {loss.item():.3f}, val top-1 {score:.3f}")
        if score > best:
            best = score
            save_classifier(copy.deepcopy(average.module), teacher.config, out, torch.float16)

    return load_classifier(str(out))
