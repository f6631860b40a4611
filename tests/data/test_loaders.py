import platform
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from prism_fast.data import Batch, dali, open_loader, torch_loader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError, InputError
from tests.data.toy import MEAN, STD, config, picture, write_run, write_run_with

BOTH = pytest.mark.parametrize("name", ["dali", "torch"])


def stream(shards: ShardSet, count: int, **changes: object) -> list[Batch]:
    feed = open_loader(shards, config(**changes), "cpu", MEAN, STD)
    batches = list(islice(feed, count))
    feed.close()
    return batches


def equal(one: list[Batch], other: list[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(getattr(a, key), getattr(b, key)) for a, b in pairs for key in vars(a))


def rows_of(batches: list[Batch]) -> list[tuple[float, ...]]:
    return [(float(label), *logits.tolist()) for b in batches for label, logits in zip(b.labels, b.logits, strict=True)]


@BOTH
@pytest.mark.parametrize("ext", ["png", "jpg", "webp"])
def test_a_batch_is_what_the_schema_says(tmp_path: Path, name: str, ext: str) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=8, ext=ext))
    (batch,) = stream(shards, 1, loader=name)
    assert batch.images.shape == (6, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous()
    assert batch.labels.shape == (6,)
    assert batch.labels.dtype == torch.int64
    assert batch.logits.shape == (6, 3)
    assert batch.logits.dtype == torch.float32
    pixels = batch.images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert torch.equal(pixels.mean((2, 3)).argmax(1), batch.labels)  # class c is bright in colour c


def test_both_loaders_give_every_sample_once_an_epoch(shards: ShardSet) -> None:
    epochs = {}
    for name in ("dali", "torch"):
        rows = rows_of(stream(shards, 11, loader=name))  # 66 samples: three epochs of 22, batches across their ends
        parts = [rows[start : start + 22] for start in (0, 22, 44)]
        assert len({tuple(part) for part in parts}) == 3  # another order each time
        assert all(sorted(part) == sorted(parts[0]) for part in parts)
        epochs[name] = sorted(parts[0])
    assert len(set(epochs["dali"])) == 22
    assert epochs["dali"] == epochs["torch"]


@BOTH
def test_without_augmentation_the_whole_picture_comes_out(shards: ShardSet, name: str) -> None:
    (batch,) = stream(shards, 1, loader=name, crop_scale=(1.0, 1.0), flip=False, image_size=24)
    for image, logits, label in zip(batch.images, batch.logits, batch.labels, strict=True):
        index = round(float(logits.min()) * 64)
        expected = torch.from_numpy(picture(int(label), index, 24)).permute(2, 0, 1) / 255
        expected = (expected - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=1e-5)


@BOTH
def test_the_stream_is_a_function_of_the_seed(shards: ShardSet, name: str) -> None:
    once = stream(shards, 5, loader=name)
    assert equal(once, stream(shards, 5, loader=name))
    assert not equal(once, stream(shards, 5, loader=name, seed=4))


@BOTH
@pytest.mark.parametrize("done", [0, 1, 5])
def test_resume_is_bit_equal(shards: ShardSet, name: str, done: int) -> None:
    whole = stream(shards, 12, loader=name)
    first = open_loader(shards, config(loader=name), "cpu", MEAN, STD)
    list(islice(first, done))
    state = first.state_dict()
    first.close()
    second = open_loader(shards, config(loader=name), "cpu", MEAN, STD)
    next(second)
    second.load_state_dict(state)
    assert equal(list(islice(second, 12 - done)), whole[done:])


@BOTH
def test_a_resumed_loader_can_be_saved_again(shards: ShardSet, name: str) -> None:
    whole = stream(shards, 9, loader=name)
    feed = open_loader(shards, config(loader=name), "cpu", MEAN, STD)
    for batch in whole:
        feed.load_state_dict(feed.state_dict())
        assert equal([next(feed)], [batch])


@BOTH
def test_batch_larger_than_the_set(tmp_path: Path, name: str) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=3))
    (batch,) = stream(shards, 1, loader=name, batch_size=9)
    assert batch.labels.bincount().tolist() == [3, 3, 3]


@BOTH
def test_state_of_the_other_loader_is_refused(shards: ShardSet, name: str) -> None:
    feed = open_loader(shards, config(loader=name), "cpu", MEAN, STD)
    with pytest.raises(DataError, match="saved by 'other'"):
        feed.load_state_dict({"loader": "other"})


@BOTH
def test_a_broken_picture_is_one_clear_error(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", rows=8)
    image = ShardSet.discover(run).shards[0].entries()[3].image
    with (run / "shards" / "000000.tar").open("r+b") as file:
        file.seek(image.offset)
        file.write(bytes(image.size))
    with pytest.raises(DataError, match=r"000000\.tar|DALI cannot read"):
        stream(ShardSet.discover(run), 2, loader=name)


@BOTH
@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1])
def test_a_label_that_is_no_class_is_one_clear_error(tmp_path: Path, name: str, label: int) -> None:
    """Before: "Target -1 out of bounds" from inside torch."""
    run = write_run_with(tmp_path / "run", label=label)
    with pytest.raises(DataError, match=rf"holds the label {label}, expected 0 to 2; 'prism-fast verify' says"):
        stream(ShardSet.discover(run), 2, loader=name)


def test_pictures_that_do_not_fit_the_cache_are_decoded_each_time(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = stream(shards, 6, loader="torch")
    monkeypatch.setattr(torch_loader, "CACHE_BYTES", 1000)
    assert equal(cached, stream(shards, 6, loader="torch"))


def test_crop_boxes_are_inside_and_as_large_as_asked() -> None:
    for seed in range(300):
        top, left, height, width = torch_loader.crop_box(np.random.default_rng(seed), 60, 80, (0.3, 0.6))
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 80 - width
        assert 0.28 < height * width / 4800 < 0.62
        assert 0.7 < width / height < 1.4


def test_a_named_loader_that_cannot_run_says_every_reason(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(InputError) as caught:
        open_loader(shards, config(), "cuda", MEAN, STD)
    for reason in ("no CUDA GPU", "Linux only", "pip install 'prism-fast[dali]'", "distill.loader=torch"):
        assert reason in str(caught.value)


def test_truncation_after_the_check_is_one_clear_error(tmp_path: Path) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=8))
    shards.shards[0].tar.write_bytes(shards.shards[0].tar.read_bytes()[:2000])
    with pytest.raises(DataError, match="DALI cannot"):
        stream(shards, 2, loader="dali")


def test_the_shuffle_buffer_is_bounded_in_bytes_and_as_before_below(shards: ShardSet) -> None:
    """A million encoded pictures of 1.8 MB, sixteen thousand of which would be 28 GB."""

    def at(rows: int, size: int) -> int:
        record = shards.shards[0].record.model_copy(update={"rows": rows, "size_bytes": rows * size})
        return dali.shuffle_fill(ShardSet((replace(shards.shards[0], record=record),), rows, 3, "png"))

    assert dali.shuffle_fill(shards) == shards.rows  # smaller than the buffer
    assert at(1_000_000, 200_000) == 16_384
    assert at(1_000_000, 1_800_000) == (4 << 30) // 1_800_000 == 2_386
    assert at(10, 8 << 30) == 1


def test_a_position_that_was_saved_before_the_bound_is_continued_as_it_was(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stream(shards, 8, loader="dali")
    feed = open_loader(shards, config(loader="dali"), "cpu", MEAN, STD)
    list(islice(feed, 3))
    now = feed.state_dict()
    old = {name: value for name, value in now.items() if name != "fill"}
    monkeypatch.setattr(dali, "_SHUFFLE_BYTES", 4000)
    assert dali.shuffle_fill(shards) < shards.rows
    assert not equal(whole, stream(shards, 8, loader="dali"))  # another order: why the number is saved
    for state in (old, now):
        other = open_loader(shards, config(loader="dali"), "cpu", MEAN, STD)
        other.load_state_dict(state)
        assert other.state_dict()["fill"] == shards.rows
        assert equal(list(islice(other, 5)), whole[3:])
