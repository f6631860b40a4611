"""A plain numpy oracle of the antialiased triangle filter."""

from __future__ import annotations

import numpy as np


def resize_matrix(start: float, length: float, size_in: int, size_out: int) -> np.ndarray:
    """Matrix (size_out, size_in) that resamples ``[start, start + length)``."""
    step = length / size_out
    support = max(1.0, step)
    centres = start + (np.arange(size_out) + 0.5) * step
    distance = np.abs(np.arange(size_in)[None, :] + 0.5 - centres[:, None]) / support
    weights = np.clip(1 - distance, 0, None)
    return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float32)
