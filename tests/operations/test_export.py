"""A run in other layouts holds the same images, labels and logits."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torchvision.datasets import ImageFolder

from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError, InputError
from prism_fast.operations import export as module
from prism_fast.operations.export import export


def test_folders_are_classes_in_order_of_their_labels(finished: Path, tmp_path: Path) -> None:
    out, wanted = tmp_path / "folders", list(ShardSet.discover(finished).samples())
    assert export(finished, out, "imagefolder") == 10
    assert sorted(p.name for p in out.iterdir()) == ["0_cat", "1_dog", "2_red"]
    found = ImageFolder(str(out))
    by_index = {int(Path(path).stem): (label, path) for path, label in found.samples}
    assert sorted(by_index) == list(range(10))
    for sample in wanted:
        label, path = by_index[sample.index]
        assert label == sample.label
        assert np.array_equal(np.array(found.loader(path)), sample.image.permute(1, 2, 0).numpy())


def test_the_encoded_images_are_not_touched(finished: Path, tmp_path: Path) -> None:
    export(finished, tmp_path / "out", "imagefolder")
    (file,) = (tmp_path / "out").glob("*/000000000.png")
    with tarfile.open(finished / "shards" / "000000.tar") as archive:
        stored = archive.extractfile("000000000.png")
        assert stored
        assert file.read_bytes() == stored.read()


def test_parquet_holds_everything(finished: Path, tmp_path: Path) -> None:
    out, wanted = tmp_path / "parquet", list(ShardSet.discover(finished).samples())
    seen: list[tuple[int, int, float]] = []
    assert export(finished, out, "parquet", lambda *progress: seen.append(progress)) == 10
    assert seen == [(1, 3, 4), (2, 3, 8), (3, 3, 10)]
    files = sorted((out / "data").iterdir())
    assert [p.name for p in files] == [f"train-{i:06d}-of-000003.parquet" for i in range(3)]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    for row, sample in zip(rows, wanted, strict=True):
        assert (row["index"], row["label"], row["prompt"]) == (sample.index, sample.label, sample.meta["prompt"])
        assert row["energy"] == pytest.approx(sample.meta["energy_after"])
        assert torch.equal(torch.tensor([float(x) for x in row["logits"]]), sample.logits)
    assert "path: data/*.parquet" in (out / "README.md").read_text()


@pytest.mark.parametrize("layout", ["imagefolder", "parquet"])
def test_a_damaged_shard_leaves_nothing(run: Path, tmp_path: Path, layout: str) -> None:
    tar = run / "shards" / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"000001\.tar is truncated"):
        export(run, tmp_path / "out", layout)  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_a_folder_with_something_in_it_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="exists and is not an empty folder; choose another --out"):
        export(finished, tmp_path, "imagefolder")
    (tmp_path / "mine").unlink()
    assert export(finished, tmp_path, "imagefolder") == 10  # an empty one is as good as none


def test_what_cannot_be_replaced_is_refused_before_anything_is_written(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: a traceback for ".", and for links and mount points an error after everything was written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    written: list[object] = []
    monkeypatch.setattr(module, "_WRITERS", {"parquet": lambda *given: written.append(given)})
    monkeypatch.chdir(tmp_path / "empty")
    for out, what in ((".", "the current directory"), ("", "the current directory"), ("../link", "a link"),
                      ("../dangling", "a link"), (tmp_path / "empty", "the current directory")):  # fmt: skip
        with pytest.raises(InputError, match=f"is {what}, which cannot be replaced; name a new folder, for example"):
            export(finished, Path(out), "parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "empty")
    with pytest.raises(InputError, match="empty is a mount point, which cannot be replaced"):
        export(finished, tmp_path / "empty", "parquet")
    assert (written, sorted(p.name for p in tmp_path.iterdir())) == ([], ["dangling", "empty", "link"])


def test_an_unfinished_run_gives_what_it_has(run: Path, tmp_path: Path) -> None:
    (run / "shards" / "000001.json").unlink()
    assert export(run, tmp_path / "out", "parquet") == 6
    shutil.rmtree(run / "shards")
    with pytest.raises(DataError, match="holds no finished shard"):
        export(run, tmp_path / "none", "parquet")
