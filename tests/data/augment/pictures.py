"""Batches of noise that is smooth enough to have edges, flat parts and every hue."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from prism_fast.data.batch import Batch
from tests.data.toy import MEAN, STD

CPU = torch.device("cpu")
CLASSES = 5


def pictures(n: int, height: int = 20, width: int = 24) -> Tensor:
    """Values in 0..1, the first picture grey, the second flat; (n, 3, height, width)."""
    coarse = torch.rand(n, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    smooth = interpolate(coarse, (height, width), mode="bilinear").clamp(0, 1)
    smooth[0] = smooth[0, :1]
    smooth[1] = torch.tensor([0.25, 0.5, 0.75])[:, None, None]
    return smooth


def batch(n: int, first: int = 0, dtype: torch.dtype = torch.float32, height: int = 20, width: int = 24) -> Batch:
    """A batch at places ``first`` to ``first + n - 1``, of which sample k is the same in every batch."""
    total = first + n
    logits = torch.randn(total, CLASSES, generator=torch.Generator().manual_seed(1)) * 3
    whole = pictures(max(total, 48), height, width)[:total]
    images = (whole - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    images = images.to(dtype).contiguous(memory_format=torch.channels_last)
    return Batch(images[first:], torch.arange(total)[first:] % CLASSES, logits[first:], np.arange(first, total))
