"""The teacher's view of an image: random crop, flip and antialiased resize as two matrices a sample.

``view(x) = rows @ x @ columnsᵀ`` is linear with fixed shapes, so the whole of decode → view → teacher → energy →
gradient is one static graph.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def resize_matrix(start: float, length: float, size_in: int, size_out: int) -> np.ndarray:
    """Matrix (size_out, size_in) that resamples ``[start, start + length)`` by an antialiased triangle filter.

    Equal to bilinear ``interpolate(..., antialias=True)`` when the interval is the whole axis.
    """
    step = length / size_out
    support = max(1.0, step)
    centres = start + (np.arange(size_out) + 0.5) * step
    distance = np.abs(np.arange(size_in)[None, :] + 0.5 - centres[:, None]) / support
    weights = np.clip(1 - distance, 0, None)
    return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float32)


def view_matrices(
    draws: np.ndarray, area: tuple[float, float], flip: bool, size_in: tuple[int, int], size_out: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices of each sample's random view.

    Args:
        draws: uniform numbers (n, 4) in [0, 1): area, top, left, flip.
        area: range of the crop's share of the image.
        flip: mirror half of the views.
        size_in: height and width of the image.
        size_out: height and width of the view.

    Shapes: returns rows (n, 1, size_out, height) and columns (n, 1, size_out, width).
    """
    rows, columns = [], []
    for share, top, left, mirror in draws:
        side = float(np.sqrt(area[0] + share * (area[1] - area[0])))
        height, width = size_in
        rows.append(resize_matrix(top * (1 - side) * height, side * height, height, size_out))
        column = resize_matrix(left * (1 - side) * width, side * width, width, size_out)
        columns.append(column[::-1].copy() if flip and mirror >= 0.5 else column)
    return torch.from_numpy(np.stack(rows)).unsqueeze(1), torch.from_numpy(np.stack(columns)).unsqueeze(1)


def apply_view(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Images (n, 3, h, w) seen through the matrices: (n, 3, size_out, size_out)."""
    return rows @ images @ columns.transpose(-1, -2)


class WholeView(nn.Module):
    """Images (n, 3, h, w) resized to a square, as the teacher sees them: the view without crop and flip.

    Equal to antialiased bilinear ``interpolate``; two constant matrices export to every engine.
    """

    def __init__(self, size_in: tuple[int, int], size_out: int) -> None:
        super().__init__()
        for name, side in zip(("rows", "columns"), size_in, strict=True):
            self.register_buffer(name, torch.from_numpy(resize_matrix(0.0, side, side, size_out)), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The resized images."""
        return apply_view(images, self.get_buffer("rows"), self.get_buffer("columns"))
