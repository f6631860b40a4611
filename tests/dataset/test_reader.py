from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prism_fast.config import RunConfig
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError
from prism_fast.models.classifier import load_classifier
from tests.damage import edit


def test_every_sample_comes_back_in_order(config: RunConfig, finished: Path) -> None:
    samples = list(ShardSet.discover(finished).samples())
    plan = RunDirectory(finished).plan().rows(0, 10)
    assert [s.index for s in samples] == list(range(10))
    assert [s.label for s in samples] == [row.label for row in plan]
    assert [s.meta["prompt"] for s in samples] == [row.prompt for row in plan]
    images, stored = torch.stack([s.image for s in samples]), torch.stack([s.logits for s in samples])
    assert images.shape == (10, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert len({bytes(image.numpy().tobytes()) for image in images}) == 10
    # a PNG keeps every pixel, so the stored logits are the teacher's of the stored image, rounded to float16
    torch.testing.assert_close(stored, load_classifier(config.models.teacher).logits(images), atol=2e-3, rtol=2e-3)


def test_a_shard_without_a_record_is_not_read(run: Path) -> None:
    (run / "shards" / "000001.json").unlink()
    assert [s.index for s in list(ShardSet.discover(run).samples())] == [0, 1, 2, 3, 8, 9]


def test_no_finished_shard_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with pytest.raises(DataError, match="holds no finished shard; run 'prism-fast synthesize' first"):
        list(ShardSet.discover(tmp_path).samples())


def boundaries(run: Path) -> dict[str, int]:
    line = (run / "shards" / "000001.idx").read_text().splitlines()[2].split()  # the second of four samples
    offset = int(line[1])
    return {"inside-a-picture": offset + 100, "inside-a-header": offset - 300, "between-samples": offset - 512}


@pytest.mark.parametrize("where", ["inside-a-picture", "inside-a-header", "between-samples"])
def test_a_truncated_tar_is_never_read_in_part(run: Path, where: str) -> None:
    tar = run / "shards" / "000001.tar"
    tar.write_bytes(tar.read_bytes()[: boundaries(run)[where]])
    with pytest.raises(DataError, match=r"000001\.tar is truncated: \d+ bytes; synthesize the shard again") as caught:
        list(ShardSet.discover(run).samples())
    assert "\n" not in str(caught.value)


def test_a_missing_tar_is_named(run: Path) -> None:
    (run / "shards" / "000002.tar").unlink()
    with pytest.raises(DataError, match=r"000002\.tar is missing although 000002\.json says the shard is finished"):
        list(ShardSet.discover(run).samples())


def test_a_record_of_another_format_is_named(run: Path) -> None:
    record = run / "shards" / "000000.json"
    edit(record, image_ext="webp")
    with pytest.raises(DataError, match=r"mixes formats: 000000\.tar has 3 classes as webp"):
        list(ShardSet.discover(run).samples())
