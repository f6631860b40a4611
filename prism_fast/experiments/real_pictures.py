"""Write labelled pictures as shards, so that a student of real data is trained by the very same code."""

from __future__ import annotations

from pathlib import Path

import torch

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.writer import commit_shard, make_record, tar_bytes
from prism_fast.models.classifier import Classifier


def write_pictures(
    out: Path, images: torch.Tensor, labels: torch.Tensor, teacher: Classifier, run_hash: str, shard_size: int
) -> int:
    """Shards of pictures with the teacher's logits, under ``out/shards``; returns their number.

    Finished ones stay: with another number of threads logits are rounded otherwise, and a student that was begun on
    them could not go on.

    Shapes: images uint8 (n, 3, h, w), labels (n,).
    """
    shards = range(-(-len(images) // shard_size))
    missing = [shard for shard in shards if not (out / "shards" / f"{shard:06d}.json").exists()]
    if not missing:
        return len(shards)
    logits = teacher.logits(images)
    for shard in missing:
        first = shard * shard_size
        rows = range(first, min(first + shard_size, len(images)))
        samples = [Sample(i, images[i], int(labels[i]), logits[i], {"index": i, "label": int(labels[i])}) for i in rows]
        tar, index = tar_bytes(samples, "png", 95)
        record = make_record(
            shard,
            samples,
            tar,
            index,
            run_hash=run_hash,
            models={},
            classes=logits.shape[1],
            image_ext="png",
            first_index=first,
            planned=len(samples),
        )
        commit_shard(out / "shards", record, tar, index)
    return len(shards)
