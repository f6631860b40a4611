from __future__ import annotations

import errno
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from prism_fast.config import RunConfig
from prism_fast.errors import DataError, InputError, RunError
from prism_fast.operations.merge import merge
from prism_fast.operations.repair import carry_out, examine
from prism_fast.operations.verify import verify
from prism_fast.workers.synthesize import synthesize
from tests.damage import edit, flip
from tests.runs import assert_same_run


def part(finished: Path, out: Path, *shards: int) -> Path:
    """What a run holds that has made only ``shards`` so far."""
    shutil.copytree(finished, out)
    for shard in {0, 1, 2} - set(shards):
        for file in (out / "shards").glob(f"{shard:06d}.*"):
            file.unlink()
    for name in ("manifest.parquet", "README.md"):
        (out / name).unlink()
    return out


@pytest.fixture
def a(finished: Path, tmp_path: Path) -> Path:
    return part(finished, tmp_path / "a", 0, 1)


@pytest.fixture
def b(finished: Path, tmp_path: Path) -> Path:
    return part(finished, tmp_path / "b", 1, 2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "run"


def files(run: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


def inode(run: Path, name: str) -> int:
    return (run / "shards" / name).stat().st_ino


def refuse(*_: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def test_two_parts_are_the_whole_run(finished: Path, a: Path, b: Path, out: Path) -> None:
    before = {**files(a), **files(b)}
    seen: list[tuple[int, int]] = []
    merged = merge([a, b], out, lambda done, total, rate: seen.append((done, total)))
    assert (merged.shards, merged.shards_planned, merged.images) == (3, 3, 10)
    assert (merged.linked, merged.copied) == (3, 0)
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2
    assert inode(out, "000002.tar") == inode(b, "000002.tar")
    assert_same_run(out, finished)
    assert verify(out).problems == ()
    assert {**files(a), **files(b)} == before


def test_where_links_are_impossible_it_copies(
    finished: Path, a: Path, b: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        merged = merge([a, b], out)
    assert (merged.linked, merged.copied) == (0, 3)
    assert inode(out, "000002.tar") != inode(b, "000002.tar")
    assert_same_run(out, finished)


def test_what_is_still_missing_is_made(config: RunConfig, finished: Path, tmp_path: Path, out: Path) -> None:
    merged = merge([part(finished, tmp_path / "first", 0), part(finished, tmp_path / "last", 2)], out)
    assert (merged.shards, merged.images) == (2, 6)
    assert not (out / "manifest.parquet").exists()
    assert not (out / "README.md").exists()
    assert verify(out).problems == ("shard 000001 is missing; run the synthesis again",)
    assert synthesize(config, out).made_now == 4
    assert_same_run(out, finished)


def test_merging_again_changes_nothing(finished: Path, a: Path, b: Path, out: Path) -> None:
    merge([a], out)
    assert not (out / "manifest.parquet").exists()
    assert merge([b], out).linked == 1
    again = merge([a, b], out)
    assert (again.shards, again.linked, again.copied) == (3, 0, 0)
    assert_same_run(out, finished)


def test_a_part_may_be_merged_into(finished: Path, a: Path, b: Path) -> None:
    assert merge([a, b], a).linked == 1
    assert_same_run(a, finished)


def test_repairing_the_merged_run_leaves_the_parts_alone(a: Path, b: Path, out: Path) -> None:
    merge([a, b], out)
    (out / "shards" / "000000.idx").unlink()
    before = files(a)
    carry_out(examine(out))
    assert not (out / "shards" / "000000.json").exists()
    assert files(a) == before


@pytest.mark.parametrize("call", range(1, 13))
def test_a_disk_that_fills_up_leaves_no_record_without_its_tar(
    finished: Path, a: Path, b: Path, out: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    calls, replace = 0, os.replace

    def full(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises((InputError, RunError), match="No space left on device"):
            merge([a, b], out)
    assert not list(out.rglob("*.tmp-*"))
    if (out / "run.json").exists():
        assert all("is missing" in problem for problem in verify(out).problems)
    merge([a, b], out)
    assert_same_run(out, finished)


def refused(error: type[Exception], said: str, paths: list[Path], out: Path) -> None:
    before = files(out) if out.exists() else None
    with pytest.raises(error, match=said) as caught:
        merge(paths, out)
    assert "\n" not in str(caught.value)
    assert (files(out) if out.exists() else None) == before


def test_parts_of_different_runs_are_refused(a: Path, b: Path, out: Path) -> None:
    edit(b / "run.json", run_hash="f" * 64)
    refused(InputError, r"b is of run ffffffffffff, but .*a of run .*; only parts of one run merge", [a, b], out)


def test_an_out_of_another_run_is_refused(a: Path, b: Path, out: Path) -> None:
    shutil.copytree(b, out)
    edit(out / "run.json", run_hash="f" * 64)
    refused(InputError, r"run belongs to run ffffffffffff, but .*; choose another --out", [a, b], out)


def test_other_weights_are_refused(a: Path, b: Path, out: Path) -> None:
    models: dict[str, Any] = json.loads((b / "shards" / "000002.json").read_text())["models"]
    for record in (b / "shards").glob("*.json"):
        edit(record, models={**models, "teacher": "f" * 64})
    refused(InputError, r"b was made with other weights \(teacher\) than .*a", [a, b], out)


def test_parts_of_two_kinds_of_gpu_are_refused(a: Path, b: Path, out: Path) -> None:
    for run, gpu in ((a, "NVIDIA H100"), (b, "NVIDIA L40S")):
        edit(run / "engines.json", gpu=gpu)
    refused(InputError, rf"{b} was made on NVIDIA L40S, {a} on NVIDIA H100", [a, b], out)


def test_a_shard_that_differs_between_two_parts_is_refused(a: Path, b: Path, out: Path) -> None:
    flip(b / "shards" / "000001.tar")
    with pytest.raises(DataError, match="000001"):
        merge([a, b], out)  # it is damaged; only with a record of its own is it another shard
    tar = (b / "shards" / "000001.tar").read_bytes()
    edit(b / "shards" / "000001.json", sha256=sha256(tar).hexdigest())
    refused(InputError, r"shard 000001 of .*a and of .*b are not the same bytes", [a, b], out)


@pytest.mark.parametrize("name", ["000002.tar", "000002.idx"])
def test_a_damaged_part_is_refused(a: Path, b: Path, out: Path, name: str) -> None:
    flip(b / "shards" / name)
    refused(DataError, rf"b: {name} .*; run 'prism-fast repair .*b' first", [a, b], out)


def test_what_is_no_run_is_refused(a: Path, tmp_path: Path, out: Path) -> None:
    refused(DataError, r"absent is not a run directory", [a, tmp_path / "absent"], out)


def test_an_out_below_a_file_is_refused(a: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*: Not a directory; choose another --out"):
        merge([a], tmp_path / "file" / "run")
