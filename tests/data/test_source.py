"""Where samples lie, what a read gives, and which files are open meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from prism_fast.data.ahead import Ahead
from prism_fast.data.files import Files
from prism_fast.data.picture import size_of
from prism_fast.data.source import Source
from prism_fast.data.table import read_table
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.writer import encode_image
from prism_fast.errors import DataError
from tests.data.toy import commit, config, write_run


def by_entries(shards: ShardSet, place: int) -> list[list[int]]:
    return [
        [e.index, e.image.offset, e.image.size, e.label.offset, e.logits.offset] for e in shards.shards[place].entries()
    ]


def test_a_table_says_what_the_entries_say(shards: ShardSet) -> None:
    table = read_table(shards.shards, (0, 2))
    assert table.rows.tolist() == by_entries(shards, 0) + by_entries(shards, 2)
    assert table.shards.tolist() == [0] * 8 + [2] * 6


def test_rejected_samples_are_in_no_table(shards: ShardSet) -> None:
    shard = shards.shards[1].without(frozenset({9, 15}))
    assert read_table([shard], (0,)).rows[:, 0].tolist() == [8, 10, 11, 12, 13, 14]
    with pytest.raises(DataError, match="expected 7 samples that are not rejected, found 8"):
        read_table([shards.shards[1].without(frozenset({99}))], (0,))


def test_samples_with_members_of_their_own_are_read_all_the_same(tmp_path: Path) -> None:
    image = torch.zeros(3, 24, 24, dtype=torch.uint8)
    plain = [Sample(i, image, 0, torch.zeros(3), {}) for i in range(3)]
    (tmp_path / "run" / "shards").mkdir(parents=True)
    commit(tmp_path / "run" / "shards", 0, range(3), plain)
    index = tmp_path / "run" / "shards" / "000000.idx"
    lines = index.read_text().splitlines()
    lines[2] = lines[2] + " txt 512 3 000000001.txt"
    shards = ShardSet.discover(tmp_path / "run")
    wanted = read_table(shards.shards, (0,)).rows.tolist()
    index.write_text("\n".join(lines) + "\n")
    assert read_table(shards.shards, (0,)).rows.tolist() == wanted == by_entries(shards, 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("png 512 ten 000000001.png", "a sample lacks one of"),
        ("png 512 10 000000001.png", "a sample lacks one of"),
        ("", "expected 3 samples, found 2|a sample lacks one of"),
    ],
)
def test_a_malformed_index_is_one_clear_error(tmp_path: Path, line: str, message: str) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=3))
    index = tmp_path / "run" / "shards" / "000000.idx"
    lines = index.read_text().splitlines()
    index.write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
    with pytest.raises(DataError, match=message):
        read_table(shards.shards, (0,))
    index.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_table(shards.shards, (0,))


def test_logits_of_another_size_are_refused(tmp_path: Path) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=3))
    index = tmp_path / "run" / "shards" / "000000.idx"
    index.write_text(index.read_text().replace(" 6 0000", " 8 0000"))
    with pytest.raises(DataError, match="3 float16 logits, found 4 and 8 bytes"):
        read_table(shards.shards, (0,))


@pytest.mark.parametrize("shuffle_bytes", [1 << 20, 2 << 30])
def test_a_read_is_what_the_shards_hold(shards: ShardSet, shuffle_bytes: int) -> None:
    samples = {sample.index: sample for sample in shards.samples()}
    source = Source(shards, config(batch_size=50, shuffle_bytes=shuffle_bytes))  # several epochs, several readers
    read = source.read(10)
    source.close()
    for place, index in enumerate(read.indices.tolist()):
        sample = samples[index]
        assert torch.equal(source.decoded(read, place), sample.image)
        assert read.labels[place] == sample.label
        assert np.array_equal(read.logits[place], sample.logits.numpy())
        assert shards.shards[read.shards[place]].record.shard == index // 8
        assert read.rows[place] == index  # of this shard set, whose samples are all of 0 to 21
    assert read.positions.tolist() == list(range(10, 60))
    assert sorted(read.indices[12:34].tolist()) == list(range(22))


def test_windows_of_single_shards_hold_one_shard(shards: ShardSet) -> None:
    source = Source(shards, config(batch_size=22).model_copy(update={"shuffle_bytes": 1}))
    read = source.read(22)
    source.close()
    changes = np.flatnonzero(np.diff(read.shards))
    assert len(changes) == 2
    assert sorted(read.indices.tolist()) == list(range(22))


def test_rows_skip_what_is_rejected(shards: ShardSet) -> None:
    some = tuple(shard.without(frozenset({8 * n + 1})) for n, shard in enumerate(shards.shards))
    source = Source(ShardSet(some, 19, 3, "png"), config(batch_size=19))
    read = source.read(0)
    source.close()
    kept = [i for i in range(22) if i % 8 != 1]
    assert sorted(read.indices.tolist()) == kept
    assert [kept[row] for row in read.rows] == read.indices.tolist()


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    shards = ShardSet.discover(write_run(tmp_path / "run", rows=6, shard_size=1)).shards
    files, held = Files(shards, 2), len(os.listdir("/proc/self/fd"))
    for place in (0, 1, 2, 3, 3, 2, 5, 0):
        into = bytearray(9)
        files.read(place, 0, memoryview(into))
        assert into == f"{place:09d}".encode()  # the name of the tar's first member
        assert len(os.listdir("/proc/self/fd")) <= held + 2
    files.close()
    assert len(os.listdir("/proc/self/fd")) == held


@pytest.mark.parametrize("ext", ["png", "jpg", "webp"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (33, 16)])
def test_sizes_are_read_from_the_first_bytes(ext: str, size: tuple[int, int]) -> None:
    data = encode_image(torch.zeros(3, *size, dtype=torch.uint8), ext, 90)
    assert size_of(memoryview(data)) == size


def test_a_jpeg_with_a_comment_and_progressive_scans_has_a_size() -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", comment=b"x" * 500, progressive=True)
    assert size_of(buffer.getvalue()) == (30, 40)


@pytest.mark.parametrize(
    "data", [b"", bytes(100), b"\x89PNG\r\n\x1a\n", b"\xff\xd8" + bytes(50), b"\xff\xd8\xff\xe0\0\x10"]
)
def test_what_is_no_picture_has_no_size(data: bytes) -> None:
    with pytest.raises(OSError, match=r"cannot identify|[Tt]runcated|broken"):
        size_of(data)


def test_work_is_done_ahead_and_no_further() -> None:
    done: list[int] = []
    ready = threading.Semaphore(0)

    def work(position: int) -> int:
        if position == 50:
            raise DataError("the sixth")
        done.append(position)
        ready.release()
        return position

    ahead = Ahead(work, 0, 10, depth=2)
    assert ahead.take() == 0
    for _ in range(3):
        assert ready.acquire(timeout=10)
    assert done == [0, 10, 20]
    assert [ahead.take() for _ in range(4)] == [10, 20, 30, 40]
    with pytest.raises(DataError, match="the sixth"):
        ahead.take()
    assert ahead.take() == 60
    ahead.close()
