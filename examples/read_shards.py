"""Read the images of a run three ways, and see that they are the same: our own reader, webdataset, and timm.

A run's shards are plain WebDataset tars. Whoever trains elsewhere needs nothing of prism-fast to read them.

    python examples/read_shards.py runs/my      # any finished run; without one, a small run is made first
    pip install webdataset                      # for the second and third way
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset  # type: ignore[import-untyped]
from timm.data import create_dataset
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

import prism_fast

Labelled = tuple[torch.Tensor, int]  # image uint8 (3, h, w), class
SMALL = ["synthesis.images=12", "synthesis.shard_size=5", "sampling.steps=2", "engines.backend=eager"]


class RunDataset(Dataset[tuple[torch.Tensor, int, torch.Tensor]]):
    """Random access by :class:`prism_fast.ShardSet`: image, class, and the teacher's logits (classes,)."""

    def __init__(self, shards: prism_fast.ShardSet) -> None:
        self.items = [(shard, entry) for shard in shards.shards for entry in shard.entries()]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int, torch.Tensor]:
        shard, entry = self.items[number]
        with shard.open() as reader:
            sample = reader.sample(entry)
        return sample.image, sample.label, sample.logits


def by_torch(shards: prism_fast.ShardSet) -> Iterator[Labelled]:
    """A DataLoader; shuffle and workers are as with any other data set."""
    for images, labels, _logits in DataLoader(RunDataset(shards), batch_size=4):
        yield from zip(images, labels.tolist(), strict=True)


def by_webdataset(shards: prism_fast.ShardSet) -> Iterator[Labelled]:
    """Logits are float16, little-endian: ``numpy.frombuffer(item["logits"], "<f2")``."""
    tars = [str(shard.tar) for shard in shards.shards]
    for item in webdataset.WebDataset(tars, shardshuffle=False).decode("pil"):
        assert len(np.frombuffer(item["logits"], "<f2")) == shards.classes
        yield pil_to_tensor(item[shards.image_ext].convert("RGB")), item["cls"]


def by_timm(run: Path, shards: prism_fast.ShardSet) -> Iterator[Labelled]:
    """What ``train.py --dataset wds/NAME`` of timm reads; it finds no ``_info.json``, warns, and takes our number."""
    tars = "::".join(str(shard.tar.relative_to(run)) for shard in shards.shards)
    for image, label in create_dataset("wds/run", root=str(run), split=f"{tars}|{shards.rows}", batch_size=4):
        yield pil_to_tensor(image), label


def main() -> None:
    """Compare the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="directory of a finished run")
    run: Path | None = parser.parse_args().run
    with tempfile.TemporaryDirectory() as scratch:
        if run is None:
            run = Path(scratch) / "run"
            prism_fast.synthesize(prism_fast.load_config("minis-emoji", SMALL), run)
        shards = prism_fast.ShardSet.discover(run)
        for ours, *others in zip(by_torch(shards), by_webdataset(shards), by_timm(run, shards), strict=True):
            for image, label in others:
                assert label == ours[1]
                assert torch.equal(image, ours[0])
    print(f"{shards.rows} images in {len(shards.shards)} shards: the same by all three")


if __name__ == "__main__":
    main()
