"""A model's hash: which files it covers, and when it is remembered."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from prism_fast.errors import DataError
from prism_fast.models.bundled import assets
from prism_fast.models.content_hash import content_hash, model_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    (path / "unet").mkdir(parents=True)
    (path / "model_index.json").write_text("{}")
    (path / "unet" / "weights").write_bytes(b"1234")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prism-fast" / "hashes.json"


def _settle(path: Path) -> None:
    """As if the files had been written long ago: only their change times are of now."""
    for _, file in model_files(path):
        os.utime(file, (1e9, 1e9))


def test_names_and_bytes_in_order(folder: Path) -> None:
    expected = hashlib.sha256(b"model_index.json{}unet/weights1234").hexdigest()
    assert content_hash(folder) == expected


@pytest.mark.parametrize("part", ["diffusion", "teacher", "light_decoder"])
def test_bundled_models_have_the_hash_they_always_had(part: str) -> None:
    root, digest = assets() / part, hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    assert content_hash(root) == digest.hexdigest()


def test_weights_behind_a_linked_folder_are_hashed(folder: Path, tmp_path: Path) -> None:
    plain = content_hash(folder)
    (folder / "unet").rename(tmp_path / "elsewhere")
    (folder / "unet").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert content_hash(folder) == plain
    (tmp_path / "elsewhere" / "weights").write_bytes(b"5678")
    assert content_hash(folder) != plain


def test_a_hub_snapshot_is_its_blobs(folder: Path, tmp_path: Path) -> None:
    plain, blobs = content_hash(folder), tmp_path / "blobs"
    blobs.mkdir()
    for number, (_, file) in enumerate(model_files(folder)):
        file.rename(blobs / str(number))
        file.symlink_to(Path(os.path.relpath(blobs, file.parent)) / str(number))
    linked = tmp_path / "snapshot"
    linked.symlink_to(folder, target_is_directory=True)
    assert content_hash(linked) == content_hash(folder) == plain
    (blobs / "1").write_bytes(b"5678")
    assert content_hash(folder) != plain


def test_links_back_and_links_to_nowhere_end(folder: Path) -> None:
    plain = content_hash(folder)
    (folder / "unet" / "back").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to(folder / "self")
    (folder / "gone").symlink_to(folder / "nothing")
    (folder / "above").symlink_to(folder.parent, target_is_directory=True)
    assert content_hash(folder) == plain


def test_leftovers_of_a_download_count(folder: Path) -> None:
    plain = content_hash(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "metadata").write_text("1")
    assert content_hash(folder) != plain


def test_a_checkpoint_file_is_hashed_with_its_config(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(b"1")
    alone = content_hash(file)
    (tmp_path / "config.json").write_text("{}")
    assert content_hash(file) != alone


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_one_line(folder: Path) -> None:
    (folder / "unet" / "weights").chmod(0)
    with pytest.raises(DataError, match="weights cannot be read: Permission denied"):
        content_hash(folder)


def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**11)


def test_a_large_model_is_read_once(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _settle(folder)
    _later(monkeypatch)
    made = content_hash(folder, remember_from=1)
    assert list(json.loads(cache.read_bytes())) == [str(folder.resolve())]
    stored = json.loads(cache.read_bytes())
    stored[str(folder.resolve())]["hash"] = "f" * 64
    cache.write_text(json.dumps(stored))
    assert content_hash(folder, remember_from=1) == "f" * 64
    assert content_hash(folder) == made, "a small one is read each time"


def test_a_changed_file_is_read_again(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _settle(folder)
    _later(monkeypatch)
    first = content_hash(folder, remember_from=1)
    (folder / "unet" / "weights").write_bytes(b"5678")
    _settle(folder)  # same size, same modification time
    assert content_hash(folder, remember_from=1) != first
    assert cache.exists()


def test_files_of_this_moment_are_not_remembered(folder: Path, cache: Path) -> None:
    content_hash(folder, remember_from=1)
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"x": 1}', b"\xff"])
def test_a_broken_cache_is_no_matter(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    _later(monkeypatch)
    made = content_hash(folder, remember_from=1)
    assert made == content_hash(folder)
    assert json.loads(cache.read_bytes())[str(folder.resolve())]["hash"] == made


def test_a_cache_that_cannot_be_written_is_no_matter(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    _later(monkeypatch)
    assert content_hash(folder, remember_from=1) == content_hash(folder)
