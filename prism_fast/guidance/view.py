"""The teacher's view of an image: random crop, flip and antialiased resize, drawn as a box a sample.

``view(x) = rows @ x @ columnsᵀ`` with the matrices of ``prism_kernels.view_matrices`` is linear with fixed shapes, so
the whole of decode → view → teacher → energy → gradient is one static graph.
"""

from __future__ import annotations

import numpy as np
import torch
from prism_kernels import view_matrices
from torch import nn


def view_boxes(draws: np.ndarray, area: tuple[float, float], flip: bool, size: tuple[int, int]) -> torch.Tensor:
    """Box of each sample's random view: top, height, left, width in pixels, flip.

    Args:
        draws: uniform numbers (n, 4) in [0, 1): area, top, left, flip.
        area: range of the crop's share of the image.
        flip: mirror half of the views.
        size: height and width of the image.

    Shapes: returns (n, 5), float32.
    """
    share, top, left, mirror = draws.T
    side = np.sqrt(area[0] + share * (area[1] - area[0]))
    height, width = size
    flipped = (mirror >= 0.5) & flip
    boxes = [top * (1 - side) * height, side * height, left * (1 - side) * width, side * width, flipped]
    return torch.from_numpy(np.stack(boxes, 1).astype(np.float32))


def apply_view(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Images (n, 3, h, w) seen through the matrices: (n, 3, size_out, size_out)."""
    return rows @ images @ columns.transpose(-1, -2)


class WholeView(nn.Module):
    """Images (n, 3, h, w) resized to a square, as the teacher sees them: the view without crop and flip.

    Equal to antialiased bilinear ``interpolate``; two constant matrices export to every engine.
    """

    def __init__(self, size_in: tuple[int, int], size_out: int) -> None:
        super().__init__()
        height, width = size_in
        box = torch.tensor([[0.0, height, 0.0, width, 0.0]])
        for name, matrix in zip(("rows", "columns"), view_matrices(box, size_in, size_out), strict=True):
            self.register_buffer(name, matrix[0, 0], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The resized images."""
        return apply_view(images, self.get_buffer("rows"), self.get_buffer("columns"))
