"""What a GPU may do faster while a student is trained, where no two runs have to agree in every bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def for_training(device: torch.device) -> Iterator[None]:
    """Meanwhile cuDNN tries its algorithms for each shape, and float32 products and convolutions use TF32.

    Nothing is set for another device than CUDA. The settings are put back: whatever judges an engine or makes samples
    in the same process needs its own.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, precisions = torch.backends.cudnn, (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = cudnn.benchmark, cudnn.deterministic, [one.fp32_precision for one in precisions]
    try:
        cudnn.benchmark, cudnn.deterministic = True, False
        for one in precisions:
            one.fp32_precision = "tf32"
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before[:2]
        for one, precision in zip(precisions, before[2], strict=True):
            one.fp32_precision = precision
