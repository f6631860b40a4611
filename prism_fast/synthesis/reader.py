"""Read finished shards back into memory."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from prism_fast.errors import DataError
from prism_fast.synthesis.rundir import RunDirectory
from prism_fast.synthesis.shards import Sample


def _samples_of(tar: Path, image_ext: str) -> Iterator[Sample]:
    parts: dict[str, bytes] = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            parts[member.name.partition(".")[2]] = stream.read()
            if "logits" in parts:  # the last member of a sample
                pixels = np.array(Image.open(io.BytesIO(parts[image_ext])).convert("RGB"))
                meta = json.loads(parts["json"])
                logits = torch.from_numpy(np.frombuffer(parts["logits"], "<f2").astype(np.float32))
                image = torch.from_numpy(pixels).permute(2, 0, 1)
                yield Sample(meta["index"], image, meta["label"], logits, meta)
                parts = {}


def read_samples(run: Path, limit: int | None = None) -> list[Sample]:
    """Samples of a run's finished shards, in order of index.

    Raises:
        DataError: no finished shard, or a tar that cannot be read.
    """
    directory = RunDirectory(run)
    records = directory.records()
    if not records:
        raise DataError(f"{run} holds no finished shard; run 'prism-fast synthesize' first")
    samples: list[Sample] = []
    for number, record in sorted(records.items()):
        tar = directory.shards / f"{number:06d}.tar"
        try:
            found = list(_samples_of(tar, record.image_ext))
            if len(found) != record.rows:  # a tar cut between two members reads without an error
                raise ValueError(f"{len(found)} samples instead of {record.rows}")
            samples += found
        except (tarfile.TarError, OSError, KeyError, ValueError) as error:
            raise DataError(f"{tar} cannot be read ({error}); 'prism-fast verify {run}' says what to do") from error
        if limit is not None and len(samples) >= limit:
            return samples[:limit]
    return samples
