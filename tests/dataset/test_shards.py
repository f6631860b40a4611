from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prism_fast.dataset.record import Record, finished_shards
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.writer import commit_shard, make_record, tar_bytes
from prism_fast.errors import DataError, RunError

EXTENSIONS = ["cls", "label", "json", "logits"]
ROWS = 3


def samples(ext: str = "png", rows: int = ROWS) -> list[Sample]:
    generator = torch.Generator().manual_seed(5)
    return [
        Sample(
            index=40 + i,
            image=torch.randint(0, 256, (3, 12, 10), dtype=torch.uint8, generator=generator),
            label=i,
            logits=torch.arange(4) * 0.25 - i,
            meta={"label": i, "index": 40 + i, "prompt": "a café", "objective_before": None, "energy_after": float(i)},
        )
        for i in range(rows)
    ]


def record_of(tar: bytes, index: str, shard: int = 7, **changes: object) -> Record:
    options: dict[str, object] = {
        "run_hash": "a" * 64, "models": {"teacher": "b"}, "classes": 4, "image_ext": "png", "first_index": 40,
        "planned": ROWS,
    }  # fmt: skip
    return make_record(shard, samples(), tar, index, **{**options, **changes})  # type: ignore[arg-type]


def commit(folder: Path) -> tuple[bytes, str]:
    tar, index = tar_bytes(samples(), "png", 95)
    commit_shard(folder, record_of(tar, index), tar, index)
    return tar, index


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("ext", ["png", "jpg", "webp"])
def test_the_tar_carries_no_time_owner_or_chance(ext: str) -> None:
    tar, _ = tar_bytes(samples(), ext, 90)
    assert tar_bytes(samples(), ext, 90)[0] == tar
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == [f"{40 + i:09d}.{e}" for i in range(ROWS) for e in [ext, *EXTENSIONS]]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members} == {
        (0, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }


def test_the_bytes_of_a_tar_do_not_change_between_versions() -> None:
    """The image is left out: its bytes are the encoder library's. Everything else is pinned by this hash."""
    tar, _ = tar_bytes(samples(), "png", 95)
    digest = hashlib.sha256()
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            if not member.name.endswith(".png"):
                digest.update(tar[member.offset : member.offset_data + member.size])
    assert digest.hexdigest() == "2faa502fe85ba20bc8d6311c804b1544ab13a5241ab348f5b89330d6900864ce"


def test_the_order_of_the_metadata_does_not_matter() -> None:
    (sample,) = samples(rows=1)
    turned = Sample(sample.index, sample.image, sample.label, sample.logits, dict(reversed(list(sample.meta.items()))))
    assert tar_bytes([turned], "png", 95) == tar_bytes([sample], "png", 95)


@pytest.mark.parametrize("ext", ["png", "jpg", "webp"])
def test_the_index_slices_every_member_out_of_the_tar(ext: str) -> None:
    tar, index = tar_bytes(samples(), ext, 90)
    header, *lines = index.splitlines()
    assert header == f"v1.2 {ROWS}"
    assert len(lines) == ROWS
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for line in lines:
            words = line.split()
            assert words[0::4] == [ext, *EXTENSIONS]
            for extension, offset, size, name in zip(words[0::4], words[1::4], words[2::4], words[3::4], strict=True):
                stream = archive.extractfile(name)
                assert stream is not None
                assert name.endswith(f".{extension}")
                assert tar[int(offset) : int(offset) + int(size)] == stream.read()


def test_a_sample_is_stored_as_designed() -> None:
    first = samples()[1]
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(samples(), "png", 95)[0])) as archive:
        parts = {e: archive.extractfile(f"000000041.{e}").read() for e in ["png", *EXTENSIONS]}  # type: ignore[union-attr]
    pixels = np.array(Image.open(io.BytesIO(parts["png"])))
    assert np.array_equal(pixels, first.image.permute(1, 2, 0).numpy())
    assert parts["cls"] == b"1"
    assert parts["label"] == b"\x01\x00\x00\x00"
    assert json.loads(parts["json"]) == first.meta
    assert np.array_equal(np.frombuffer(parts["logits"], "<f2"), first.logits.half().numpy())


def test_an_empty_shard_is_a_readable_tar() -> None:
    tar, index = tar_bytes([], "png", 95)
    assert index == "v1.2 0\n"
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert archive.getmembers() == []


def test_dali_reads_what_we_write(tmp_path: Path) -> None:
    dali: Any = pytest.importorskip("nvidia.dali")
    commit(tmp_path)
    pipe = dali.Pipeline(batch_size=ROWS, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipe:
        png, label, logits = dali.fn.readers.webdataset(
            paths=[str(tmp_path / "000007.tar")],
            index_paths=[str(tmp_path / "000007.idx")],
            ext=["png", "label", "logits"],
            dtypes=[dali.types.UINT8, dali.types.INT32, dali.types.FLOAT16],
        )
        pipe.set_outputs(dali.fn.decoders.image(png, device="cpu"), label, logits)
    pipe.build()
    images, labels, logits = pipe.run()
    for i, sample in enumerate(samples()):
        assert np.array_equal(np.array(images[i]), sample.image.permute(1, 2, 0).numpy())
        assert np.array(labels[i]).tolist() == [sample.label]
        assert np.array_equal(np.array(logits[i]), sample.logits.half().numpy())


def test_a_commit_leaves_three_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "shards"
    tar, index = commit(folder)
    assert names(folder) == ["000007.idx", "000007.json", "000007.tar"]
    assert (folder / "000007.tar").read_bytes() == tar
    assert (folder / "000007.idx").read_text() == index
    record = finished_shards(folder)[7]
    assert (record.sha256, record.size_bytes, record.rows) == (hashlib.sha256(tar).hexdigest(), len(tar), ROWS)
    assert record.index_sha256 == hashlib.sha256(index.encode()).hexdigest()
    assert (record.energy_after_mean, record.objective_before_mean) == (1.0, None)


def test_the_record_comes_last_and_every_file_is_synced_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(descriptor: int) -> None:
        events.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition(".tmp-")[0])
        fsync(descriptor)

    def watch_replace(source: Path, target: Path) -> None:
        events.append(f"name {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    commit(tmp_path)
    files = ["000007.tar", "000007.idx", "000007.json"]
    folder = f"sync {tmp_path.name}"
    wanted = [event for name in files for event in (f"sync {name}", f"name {name}")]
    wanted.insert(-1, folder)  # tar and index are durable under their names before the record gets its own
    assert events == [*wanted, folder]


def test_a_tar_without_a_record_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "000007.tar").write_bytes(b"torn")
    (tmp_path / "000007.idx").write_bytes(b"torn")
    assert finished_shards(tmp_path) == {}
    tar, index = commit(tmp_path)
    assert (tmp_path / "000007.tar").read_bytes() == tar
    assert (tmp_path / "000007.idx").read_text() == index


def fail_at(count: int, function: Callable[..., object], code: int) -> Callable[..., object]:
    calls = 0

    def wrapped(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == count:
            raise OSError(code, os.strerror(code))
        return function(*args, **options)

    return wrapped


@pytest.mark.parametrize(
    ("call", "count"),
    [("fsync", 1), ("fsync", 2), ("fsync", 3), ("fsync", 4), ("replace", 1), ("replace", 2), ("replace", 3)],
)
def test_a_full_disk_leaves_no_temporaries_and_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, count: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_at(count, getattr(os, call), errno.ENOSPC))
        with pytest.raises(RunError) as caught:
            commit(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "000007" in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [name for name in names(tmp_path) if ".tmp" in name or name.endswith(".json")]
    tar, _ = commit(tmp_path)  # and the same call succeeds when there is room again
    assert (tmp_path / "000007.tar").read_bytes() == tar
    assert names(tmp_path) == ["000007.idx", "000007.json", "000007.tar"]


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("")
    with pytest.raises(RunError, match=r"cannot write shard 000007 in .*shards: File exists"):
        commit(tmp_path / "shards")


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    commit(tmp_path)
    path = tmp_path / "000007.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"000007\.json is not a shard record; delete it"):
        finished_shards(tmp_path)
