"""One picture of a run: a column a class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from prism_fast.dataset.sample import Sample
from prism_fast.errors import InputError

_GAP = 2


def class_grid(samples: Sequence[Sample], rows: int) -> torch.Tensor:
    """The first ``rows`` samples of each class under each other, classes side by side, on white.

    Shapes: returns uint8 (3, rows · (h + 2), classes · (w + 2)).
    """
    columns: dict[int, list[torch.Tensor]] = defaultdict(list)
    for sample in samples:
        if len(columns[sample.label]) < rows:
            columns[sample.label].append(sample.image)
    _, height, width = samples[0].image.shape
    grid = torch.full((3, rows * (height + _GAP), len(columns) * (width + _GAP)), 255, dtype=torch.uint8)
    for x, label in enumerate(sorted(columns)):
        for y, image in enumerate(columns[label]):
            top, left = y * (height + _GAP), x * (width + _GAP)
            grid[:, top : top + height, left : left + width] = image
    return grid


def save_class_grid(samples: Sequence[Sample], rows: int, path: Path) -> Path:
    """Write :func:`class_grid` as PNG.

    Raises:
        InputError: ``path`` cannot be written.
    """
    grid = Image.fromarray(class_grid(samples, rows).permute(1, 2, 0).contiguous().numpy())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        grid.save(path, "PNG")
    except OSError as error:
        raise InputError(f"cannot write the picture {path}: {error.strerror or error}; choose another path") from error
    return path
