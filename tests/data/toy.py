"""Tiny runs in the shard format: every sample's logits are its own fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from prism_fast.config import DistillConfig
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.writer import commit_shard, make_record, tar_bytes

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def picture(label: int, index: int, size: int) -> np.ndarray:
    """Class c is bright in colour c: learnable within a few steps."""
    pixels = np.random.default_rng(index).integers(0, 60, (size, size, 3))
    pixels[..., label % 3] += 180
    return pixels.astype(np.uint8)


def write_shard(
    directory: Path, number: int, rows: range, *, classes: int = 3, ext: str = "png", size: int = 24
) -> Path:
    """Tar, DALI index and record, as synthesize writes them."""
    samples = []
    for index in rows:
        label = index % classes
        image = torch.from_numpy(picture(label, index, size)).permute(2, 0, 1)
        logits = torch.eye(classes)[label] * 6 + index / 64
        samples.append(Sample(index, image, label, logits, {"index": index}))
    return commit(directory, number, rows, samples, classes, ext)


def commit(
    directory: Path, number: int, rows: range, samples: Sequence[Sample], classes: int = 3, ext: str = "png"
) -> Path:
    """A shard of samples, whatever they hold."""
    tar, text = tar_bytes(samples, ext, 75)
    record = make_record(
        number,
        samples,
        tar,
        text,
        run_hash="toy",
        models={},
        classes=classes,
        image_ext=ext,
        first_index=rows.start,
        planned=len(rows),
    )
    return commit_shard(directory, record, tar, text)


def write_run_with(run: Path, label: int = 0, logits: Sequence[float] = (6, 0, 0), rows: int = 8) -> Path:
    """A run whose fourth sample has this label and these logits, as a writer that went wrong would leave them."""
    (run / "shards").mkdir(parents=True)
    image = torch.zeros(3, 24, 24, dtype=torch.uint8)
    plain = [Sample(i, image, 0, torch.tensor([6.0, 0, 0]), {"index": i}) for i in range(rows)]
    odd = Sample(3, image, label, torch.tensor(logits, dtype=torch.float32), {"index": 3})
    commit(run / "shards", 0, range(rows), [*plain[:3], odd, *plain[4:]])
    return run


def write_run(
    run: Path, rows: int = 22, shard_size: int = 8, *, classes: int = 3, ext: str = "png", size: int = 24
) -> Path:
    directory = run / "shards"
    directory.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, shard_size)):
        write_shard(directory, number, range(start, min(start + shard_size, rows)), classes=classes, ext=ext, size=size)
    return run


def config(**changes: object) -> DistillConfig:
    settings = {"student": "test_resnet", "image_size": 16, "batch_size": 6, "seed": 3, "steps": 12, "warmup_steps": 2}
    return DistillConfig.model_validate({**settings, **changes})
