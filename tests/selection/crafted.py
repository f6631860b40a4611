"""Finished runs of chosen labels, energies and pictures; every sample's first logit is its index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.stub import stub_config
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.writer import commit_shard, make_record, tar_bytes
from prism_fast.models.content_hash import content_hash
from tests.tiny import make_teacher

SHARD = 4


@dataclass(frozen=True)
class Row:
    """``picture`` seeds the noise that the image is; None: one that no other sample has."""

    label: int
    energy: float | None
    top1: int | None = None
    picture: int | None = None


def image(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 16, 16), generator=generator, dtype=torch.uint8)


def sample(index: int, row: Row) -> Sample:
    meta = {"index": index, "label": row.label, "prompt": "a cat", "energy_after": row.energy}
    meta |= {} if row.top1 is None else {"teacher_top1": row.top1}
    picture = 1000 + index if row.picture is None else row.picture
    return Sample(index, image(picture), row.label, torch.tensor([float(index), 0.0, 0.0]), meta)


def write_run(folder: Path, rows: Sequence[Row], backwards: bool = False) -> Path:
    """A run of shards of four, the last one first if it is made ``backwards``."""
    folder.mkdir(parents=True, exist_ok=True)
    teacher = make_teacher(folder / "teacher")
    models = {"diffusion": "stub", "teacher": str(teacher)}
    config = stub_config(folder, images=len(rows), shard_size=SHARD, models=models)
    run = RunDirectory(folder / "run")
    run.claim(config)
    numbers = range(run.layout().shards)
    for number in reversed(numbers) if backwards else numbers:
        write_shard(run, number, rows, content_hash(teacher))
    return run.path


def write_shard(run: RunDirectory, number: int, rows: Sequence[Row], teacher: str) -> None:
    first, planned = run.layout().extent(number)
    samples = [sample(i, rows[i]) for i in range(first, first + planned)]
    tar, index = tar_bytes(samples, "png", 95)
    record = make_record(
        number,
        samples,
        tar,
        index,
        run_hash=run.layout().run_hash,
        models={"diffusion": "d", "teacher": teacher},
        classes=3,
        image_ext="png",
        first_index=first,
        planned=planned,
    )
    commit_shard(run.shards, record, tar, index)
