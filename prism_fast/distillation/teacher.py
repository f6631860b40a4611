"""The teacher as a live source of targets: it sees the student's own augmented view, at its own size.

Reference: Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prism_fast.distillation.losses.features import Featured
from prism_fast.distillation.outputs import Outputs
from prism_fast.errors import DataError
from prism_fast.models.at_once import at_once
from prism_fast.models.classifier import Classifier
from prism_fast.models.outputs import concatenated
from prism_fast.models.resize import resized


class LiveTeacher(nn.Module):
    """What a teacher says of normalised pictures (n, 3, h, w), resized to its own size; ``maps``: its features too."""

    def __init__(self, teacher: Classifier, maps: bool = False) -> None:
        super().__init__()
        self.net, self.size = Featured(teacher.net, maps), teacher.config.image_size

    @torch.no_grad()
    def forward(self, images: Tensor) -> Outputs:
        """Antialiased bilinear resize, then the network."""
        parts = images.split(at_once(images.device, len(images)))
        return concatenated([self.net(resized(part, self.size, self.size)) for part in parts])


def require_logits(found: Tensor, held: Tensor) -> None:
    """Refuse a live teacher of other classes than the shards'.

    Raises:
        DataError: it is one.
    """
    if found.shape != held.shape:
        raise DataError(f"the live teacher gives {[*found.shape]} logits, the shards hold {[*held.shape]}")
