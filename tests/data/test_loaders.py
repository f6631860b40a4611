import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prism_fast.data import Batch, loader, open_loader, torch_loader
from prism_fast.data.loader import Loader, Part
from prism_fast.dataset.shard import Shard
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import DataError, InputError
from prism_fast.views.draw import ViewRule, draw_views
from prism_fast.views.render import render
from tests.data.toy import MEAN, STD, config, picture, write_run, write_run_with

BOTH = pytest.mark.parametrize("name", ["dali", "torch"])


@contextmanager
def opened(shards: ShardSet, part: Part | None = None, **changes: object) -> Iterator[Loader]:
    feed = open_loader(shards, config(**changes), "cpu", MEAN, STD, part)
    try:
        yield feed
    finally:
        feed.close()


def stream(shards: ShardSet, count: int, part: Part | None = None, **changes: object) -> list[Batch]:
    with opened(shards, part, **changes) as feed:
        return list(islice(feed, count))


def equal(one: list[Batch], other: list[Batch]) -> bool:
    pairs = list(zip(one, other, strict=True))
    same = all(
        torch.equal(getattr(a, key), getattr(b, key)) for a, b in pairs for key in ("images", "labels", "logits")
    )
    return same and all(np.array_equal(a.positions, b.positions) for a, b in pairs)


def rows_of(batches: list[Batch]) -> list[tuple[float, ...]]:
    return [(float(label), *logits.tolist()) for b in batches for label, logits in zip(b.labels, b.logits, strict=True)]


def indices(batches: list[Batch]) -> list[int]:
    """Each toy sample's logits are its index in 64ths, and 6 at its class."""
    return [round(float(logits.min()) * 64) for batch in batches for logits in batch.logits]


def unnormalised(images: torch.Tensor) -> torch.Tensor:
    return images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


@BOTH
@pytest.mark.parametrize("ext", ["png", "jpg", "webp"])
def test_a_batch_is_what_the_schema_says(tmp_path: Path, name: str, ext: str) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=8, ext=ext))
    (batch,) = stream(shards, 1, loader=name)
    assert batch.images.shape == (6, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.shape == (6,)
    assert batch.labels.dtype == torch.int64
    assert batch.logits.shape == (6, 3)
    assert batch.logits.dtype == torch.float32
    assert batch.positions.dtype == np.int64
    assert batch.positions.tolist() == list(range(6))
    assert torch.equal(unnormalised(batch.images).mean((2, 3)).argmax(1), batch.labels)  # class c is bright in colour c


@pytest.mark.parametrize("ext", ["png", "jpg", "webp"])
@pytest.mark.parametrize("views", [1, 3])
def test_both_loaders_give_the_same(tmp_path: Path, ext: str, views: int) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", ext=ext, size=50))
    ours, theirs = (stream(shards, 8, loader=name, views_per_decode=views) for name in ("torch", "dali"))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.logits, other.logits)
        assert np.array_equal(one.positions, other.positions)
        torch.testing.assert_close(one.images, other.images, atol=1e-5, rtol=0)


@BOTH
@pytest.mark.parametrize("views", [1, 2])
def test_pixels_are_those_of_the_view_that_is_drawn(shards: ShardSet, name: str, views: int) -> None:
    """Once more by hand: 22 samples, so positions from 22 on are the second epoch's."""
    batches = stream(shards, 10, loader=name, views_per_decode=views, image_size=20)
    seen = zip(indices(batches), torch.cat([b.images for b in batches]), strict=True)
    turns = [at // views // 22 * views + at % views for b in batches for at in b.positions.tolist()]
    for (index, image), turn in zip(seen, turns, strict=True):
        rule, size = ViewRule(3, (0.5, 1.0), True), np.array([[24, 24]], np.int32)
        drawn = draw_views(rule, np.array([index]), np.array([turn]), size)
        whole = torch.from_numpy(picture(index % 3, index, 24)).permute(2, 0, 1)
        expected = render(whole, drawn.boxes[0].tolist(), bool(drawn.flips[0]), 20)
        torch.testing.assert_close(unnormalised(image), expected, atol=1e-5, rtol=0)


def test_both_loaders_give_every_sample_once_an_epoch(shards: ShardSet) -> None:
    epochs = {}
    for name in ("dali", "torch"):
        rows = rows_of(stream(shards, 11, loader=name))  # 66 samples: three epochs of 22, batches across their ends
        parts = [rows[start : start + 22] for start in (0, 22, 44)]
        assert len({tuple(part) for part in parts}) == 3  # another order each time
        assert all(sorted(part) == sorted(parts[0]) for part in parts)
        epochs[name] = parts
    assert len(set(epochs["dali"][0])) == 22
    assert epochs["dali"] == epochs["torch"]


@BOTH
def test_views_of_a_picture_lie_side_by_side_and_differ(shards: ShardSet, name: str) -> None:
    batches = stream(shards, 11, loader=name, views_per_decode=2)  # three pictures a batch: one epoch and a half
    found = indices(batches)
    assert found[::2] == found[1::2]
    assert sorted(found[:44:2]) == list(range(22))
    assert [int(at) for b in batches for at in b.positions] == list(range(66))
    images = torch.cat([b.images for b in batches])
    assert (images[::2] != images[1::2]).flatten(1).any(1).float().mean() > 0.9


@BOTH
def test_without_augmentation_the_whole_picture_comes_out(shards: ShardSet, name: str) -> None:
    (batch,) = stream(shards, 1, loader=name, crop_scale=(1.0, 1.0), flip=False, image_size=24)
    for image, index in zip(batch.images, indices([batch]), strict=True):
        expected = torch.from_numpy(picture(index % 3, index, 24)).permute(2, 0, 1) / 255
        torch.testing.assert_close(unnormalised(image), expected, atol=1e-5, rtol=1e-5)


@BOTH
def test_the_stream_is_a_function_of_the_seed(shards: ShardSet, name: str) -> None:
    once = stream(shards, 5, loader=name)
    assert equal(once, stream(shards, 5, loader=name))
    assert not equal(once, stream(shards, 5, loader=name, seed=4))


@BOTH
@pytest.mark.parametrize("views", [1, 2])
def test_ranks_together_give_what_one_gives(shards: ShardSet, name: str, views: int) -> None:
    changes: dict[str, Any] = {"loader": name, "views_per_decode": views, "batch_size": 12}
    whole = stream(shards, 5, **changes)
    parts = [stream(shards, 5, Part(rank, 3), **changes) for rank in range(3)]
    for batch, *mine in zip(whole, *parts, strict=True):
        assert [len(one.labels) for one in mine] == [4, 4, 4]
        for key in ("images", "labels", "logits"):
            assert torch.equal(getattr(batch, key), torch.cat([getattr(one, key) for one in mine]))
        assert batch.positions.tolist() == [int(at) for one in mine for at in one.positions]


def test_a_batch_that_the_ranks_cannot_share_is_refused(shards: ShardSet) -> None:
    with pytest.raises(InputError, match="decodes 3 pictures, which 2 ranks cannot share"):
        open_loader(shards, config(views_per_decode=2), "cpu", MEAN, STD, Part(0, 2))
    with pytest.raises(InputError, match="rank must be 0 to 1, got 2"):
        open_loader(shards, config(), "cpu", MEAN, STD, Part(2, 2))


@BOTH
def test_the_side_can_be_another_than_the_recipes(shards: ShardSet, name: str) -> None:
    feed = open_loader(shards, config(loader=name), "cpu", MEAN, STD, image_size=20)
    assert next(feed).images.shape == (6, 3, 20, 20)
    feed.close()


@BOTH
@pytest.mark.parametrize("done", [0, 1, 5])
def test_resume_is_bit_equal(shards: ShardSet, name: str, done: int) -> None:
    whole = stream(shards, 12, loader=name)
    with opened(shards, loader=name) as first:
        list(islice(first, done))
        state = first.state_dict()
    assert state == {"loader": name, "position": 6 * done}
    with opened(shards, loader=name) as second:
        next(second)
        second.load_state_dict(state)
        assert equal(list(islice(second, 12 - done)), whole[done:])


@BOTH
def test_a_position_of_one_rank_is_continued_by_two(shards: ShardSet, name: str) -> None:
    whole = stream(shards, 6, loader=name, views_per_decode=3)
    with opened(shards, loader=name, views_per_decode=3) as alone:
        list(islice(alone, 4))
        state = alone.state_dict()
    assert state["position"] == 8  # pictures, of which a step decodes two
    parts = []
    for rank in range(2):
        with opened(shards, Part(rank, 2), loader=name, views_per_decode=3) as feed:
            feed.load_state_dict(state)
            parts.append(list(islice(feed, 2)))
            assert feed.state_dict()["position"] == 12
    for batch, *mine in zip(whole[4:], *parts, strict=True):
        assert torch.equal(batch.images, torch.cat([one.images for one in mine]))


@BOTH
def test_a_resumed_loader_can_be_saved_again(shards: ShardSet, name: str) -> None:
    whole = stream(shards, 5, loader=name)
    with opened(shards, loader=name) as feed:
        for batch in whole:
            feed.load_state_dict(feed.state_dict())
            assert equal([next(feed)], [batch])


@BOTH
def test_batch_larger_than_the_set(tmp_path: Path, name: str) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=3))
    (batch,) = stream(shards, 1, loader=name, batch_size=9)
    assert batch.labels.bincount().tolist() == [3, 3, 3]


@BOTH
def test_state_of_another_loader_or_of_before_is_refused(shards: ShardSet, name: str) -> None:
    with opened(shards, loader=name) as feed:
        with pytest.raises(DataError, match="saved by 'other'"):
            feed.load_state_dict({"loader": "other", "position": 6})
        with pytest.raises(DataError, match="begin training again") as caught:
            feed.load_state_dict({"loader": name, "fill": 22, "checkpoint": torch.zeros(8, dtype=torch.uint8)})
        assert "\n" not in str(caught.value)
        next(feed)  # it goes on where it was


@BOTH
@pytest.mark.parametrize("kept", [0, 60])
def test_a_broken_picture_is_one_clear_error(tmp_path: Path, name: str, kept: int) -> None:
    """Zeros from the first byte on, or after a header that is whole."""
    run = write_run(tmp_path / "run", rows=8)
    image = ShardSet.discover(run).shards[0].entries()[3].image
    with (run / "shards" / "000000.tar").open("r+b") as file:
        file.seek(image.offset + kept)
        file.write(bytes(image.size - kept))
    with pytest.raises(DataError, match=r"000000\.tar cannot be read \(sample 3 is no png") as caught:
        stream(ShardSet.discover(run, check=False), 2, loader=name)
    assert "\n" not in str(caught.value)


@BOTH
@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1])
def test_a_label_that_is_no_class_is_one_clear_error(tmp_path: Path, name: str, label: int) -> None:
    """Before: "Target -1 out of bounds" from inside torch."""
    run = write_run_with(tmp_path / "run", label=label)
    wanted = rf"000000\.tar holds the label {label}, expected 0 to 2; 'prism-fast verify' says"
    with pytest.raises(DataError, match=wanted):
        stream(ShardSet.discover(run), 2, loader=name)


@BOTH
def test_truncation_after_the_check_is_one_clear_error(tmp_path: Path, name: str) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=8))
    shards.shards[0].tar.write_bytes(shards.shards[0].tar.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"000000\.tar cannot be read .* cut short"):
        stream(shards, 2, loader=name)


@BOTH
def test_a_tar_that_goes_away_is_one_clear_error(tmp_path: Path, name: str) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=8))
    shards.shards[0].tar.unlink()
    with pytest.raises(DataError, match=r"000000\.tar cannot be read \(No such file"):
        stream(shards, 2, loader=name)


def test_pictures_that_do_not_fit_the_cache_are_decoded_each_time(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = stream(shards, 8, loader="torch")
    monkeypatch.setattr(torch_loader, "CACHE_BYTES", 3 * 24 * 24 * 5)
    with opened(shards, loader="torch") as feed:
        assert isinstance(feed, torch_loader.TorchLoader)
        assert equal(cached, list(islice(feed, 8)))
        assert len(feed._cache) == 5


@BOTH
def test_nothing_is_left_behind(shards: ShardSet, name: str) -> None:
    before = {thread for thread in threading.enumerate() if thread.is_alive()}
    stream(shards, 2, loader=name)
    until = time.monotonic() + 5
    while left := [t.name for t in set(threading.enumerate()) - before if t.name.startswith("prism-fast")]:
        assert time.monotonic() < until, left


def test_more_shards_than_descriptors(tmp_path: Path) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=80, shard_size=1, size=8))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for name in ("dali", "torch"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
        try:
            found = indices(stream(shards, 5, loader=name, batch_size=16))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert sorted(found) == list(range(80))


class FakeViews:
    """Five views of each sample whose logits say which they are."""

    rule, count = ViewRule(77, (0.3, 0.4), False), 5

    def logits(self, shard: Shard, indices: np.ndarray, views: np.ndarray) -> np.ndarray:
        assert set(indices.tolist()) <= {entry.index for entry in shard.entries()}
        return np.stack([indices, views, np.full_like(views, shard.record.shard)], axis=1).astype(np.float16)


@BOTH
def test_logits_are_those_of_the_stored_view_that_is_shown(
    shards: ShardSet, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "open_view_labels", lambda given: FakeViews())
    batches = stream(shards, 28, loader=name, teacher="views", views_per_decode=2)  # 84 pictures: nearly four epochs
    size, epochs = np.array([[24, 24]], np.int32), []
    for batch in batches:
        assert batch.logits.dtype == torch.float32
        for image, (index, view, shard), at in zip(
            batch.images, batch.logits.int().tolist(), batch.positions, strict=True
        ):
            epoch, slot = int(at) // 2 // 22, int(at) % 2
            assert view == (2 * epoch + slot) % 5
            assert shard == index // 8
            drawn = draw_views(FakeViews.rule, np.array([index]), np.array([view]), size)
            whole = torch.from_numpy(picture(index % 3, index, 24)).permute(2, 0, 1)
            expected = render(whole, drawn.boxes[0].tolist(), bool(drawn.flips[0]), 16)
            torch.testing.assert_close(unnormalised(image), expected, atol=1e-5, rtol=0)
            epochs.append(epoch)
    assert set(epochs) == {0, 1, 2, 3}


def test_a_named_loader_that_cannot_run_says_every_reason(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(InputError) as caught:
        open_loader(shards, config(), "cuda", MEAN, STD)
    for reason in ("no CUDA GPU", "Linux only", "pip install 'prism-fast[dali]'", "distill.loader=torch"):
        assert reason in str(caught.value)
