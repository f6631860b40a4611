"""The teacher as a live source of targets: it sees the student's own augmented view, at its own size.

Reference: Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from prism_fast.models.classifier import Classifier


class LiveTeacher(nn.Module):
    """Logits (n, classes) of normalised pictures of any size (n, 3, h, w), resized to the teacher's."""

    def __init__(self, teacher: Classifier) -> None:
        super().__init__()
        self.net, self.size = teacher.net, teacher.config.image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Antialiased bilinear resize, then the network."""
        side = (self.size, self.size)
        if tuple(images.shape[-2:]) != side:
            images = F.interpolate(images, size=side, mode="bilinear", antialias=True, align_corners=False)
        logits: torch.Tensor = self.net(images)
        return logits
