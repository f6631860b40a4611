"""Read the minis' picture table into tensors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image

from prism_fast.errors import DataError


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures: ``images`` uint8 (n, 3, 64, 64), ``labels`` int64 (n,), concept and style names."""

    images: torch.Tensor
    labels: torch.Tensor
    concepts: tuple[str, ...]
    styles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.concepts)

    def every(self, step: int) -> Pictures:
        """One picture of each ``step``, from the first on."""
        return Pictures(self.images[::step], self.labels[::step], self.concepts[::step], self.styles[::step])


def load_pictures(table_path: Path, split: str, styles: Sequence[str]) -> Pictures:
    """Pictures of one split in the given styles.

    Raises:
        DataError: the table is missing, or holds no such picture.
    """
    if not table_path.is_file():
        raise DataError(f"{table_path} does not exist; run 'prism-fast minis data' to make it")
    table = pq.read_table(table_path)
    table = table.filter((pc.field("split") == split) & pc.field("style").isin(list(styles)))
    if table.num_rows == 0:
        raise DataError(f"{table_path} holds no {split} picture in the styles {', '.join(styles)}")
    arrays = [np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in table["image"].to_pylist()]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return Pictures(
        images,
        torch.tensor(table["label"].to_pylist()),
        tuple(table["concept"].to_pylist()),
        tuple(table["style"].to_pylist()),
    )
