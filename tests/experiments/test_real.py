from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prism_fast.config import RunConfig
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.experiments.real_pictures import write_pictures
from prism_fast.models.classifier import load_classifier
from prism_fast.models.content_hash import content_hash


@pytest.mark.parametrize(("count", "size", "shards"), [(5, 2, 3), (4, 2, 2), (1, 8, 1)])
def test_pictures_come_back_from_their_shards(
    config: RunConfig, tmp_path: Path, count: int, size: int, shards: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 20, 20), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 3
    teacher = load_classifier(config.models.teacher)
    assert write_pictures(tmp_path, images, labels, teacher, "a" * 64, size) == shards
    samples = list(ShardSet.discover(tmp_path).samples())
    assert [s.index for s in samples] == list(range(count))
    assert torch.equal(torch.stack([s.image for s in samples]), images)
    assert [s.label for s in samples] == labels.tolist()
    assert torch.equal(torch.stack([s.logits for s in samples]), teacher.logits(images).half().float())
    found = ShardSet.discover(tmp_path)  # what the training reads
    assert (len(found.shards), found.rows, found.classes, found.image_ext) == (shards, count, 3, "png")


def test_written_twice_is_the_same_bytes(config: RunConfig, tmp_path: Path) -> None:
    images, labels = torch.zeros(3, 3, 20, 20, dtype=torch.uint8), torch.zeros(3, dtype=torch.long)
    teacher = load_classifier(config.models.teacher)
    for _ in range(2):
        write_pictures(tmp_path / "one", images, labels, teacher, "a" * 64, 2)
    write_pictures(tmp_path / "two", images, labels, teacher, "a" * 64, 2)
    for path in sorted((tmp_path / "one" / "shards").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / "shards" / path.name).read_bytes()


def test_a_content_hash_is_of_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    file = folder / "unet" / "weights"
    file.write_bytes(b"abcdef")
    (folder / "config").write_bytes(b"1")
    first = content_hash(folder)
    assert content_hash(folder) == first
    assert content_hash(folder.rename(tmp_path / "moved")) == first  # where it lies does not matter
    file = tmp_path / "moved" / "unet" / "weights"
    file.write_bytes(b"abcdeg")
    changed = content_hash(tmp_path / "moved")
    file.write_bytes(b"abcdef")
    file.rename(file.with_name("other"))
    renamed = content_hash(tmp_path / "moved")
    assert len({first, changed, renamed}) == 3


def test_a_content_hash_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    first = content_hash(tmp_path / "weights")
    (tmp_path / "weights").write_bytes(b"abd")
    assert content_hash(tmp_path / "weights") != first


def test_finished_shards_stay_whatever_the_logits_would_be_now(config: RunConfig, tmp_path: Path) -> None:
    """A student that was begun on them goes on; a shard that is missing is made."""
    images, labels = torch.zeros(4, 3, 20, 20, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    teacher = load_classifier(config.models.teacher)
    write_pictures(tmp_path, images, labels, teacher, "a" * 64, 2)
    before = {path: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    (tmp_path / "shards" / "000001.json").unlink()
    with torch.no_grad():
        teacher.net.get_classifier().bias.add_(1)  # type: ignore[operator]
    write_pictures(tmp_path, images, labels, teacher, "a" * 64, 2)
    after = {path: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    changed = {path.name for path in before if before[path] != after[path]}
    assert "000000.tar" not in changed
    assert "000001.tar" in changed
