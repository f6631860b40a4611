"""Loading shards for the student: NVIDIA DALI against the plain torch loader, same shards, same augmentation contract.
Images are random noise of the configuration's size, which no format compresses: the slowest case for a decoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks import harness
from benchmarks.options import Options
from benchmarks.shards import write_random
from prism_fast.config import RunConfig
from prism_fast.data import Batch
from prism_fast.data.loader import open_loader, reasons
from prism_fast.dataset.shard_set import ShardSet

COLUMNS = ("loader", "image_format", "images_per_s.p20", "images_per_s.p50", "images_per_s.p80", "ratio_to_torch")
_BATCHES = 16


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """A row a loader and image format."""
    rows = []
    device = torch.device(options.device)
    for image_format in ("png", "jpg"):
        with tempfile.TemporaryDirectory(prefix="prism-bench-") as scratch:
            write_random(config, Path(scratch), shards=8, image_format=image_format)
            shards = ShardSet.discover(Path(scratch))
            base: float | None = None
            for name in ("torch", "dali"):
                if why := reasons(name, device):
                    harness.log(f"{name}: {'; '.join(why)}")
                    continue
                distill = config.distill.model_copy(update={"loader": name})
                loader = open_loader(shards, distill, device, (0.5,) * 3, (0.5,) * 3)
                timing = harness.measure(partial(_take, loader), options.repeats, options.device)
                loader.close()
                rate = timing.rate(_BATCHES * distill.batch_size)
                base = base or rate["p50"]
                rows.append(
                    {
                        "loader": name,
                        "image_format": image_format,
                        "images_per_s": rate,
                        "ratio_to_torch": rate["p50"] / base,
                    }
                )
    return rows


def _take(loader: Iterator[Batch]) -> None:
    for _ in range(_BATCHES):
        next(loader)
