"""Local files: what is no file is neither waited for nor replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from prism_fast.storage.files import building, read, replace
from prism_fast.storage.paths import local_path, run_path
from tests.damage import make_pipe


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    make_pipe(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a pipe or a device, not a file"):
        read(tmp_path / "pipe")


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


@pytest.mark.parametrize("way", ["replace", "building"])
def test_a_pipe_or_device_is_not_replaced(tmp_path: Path, way: str) -> None:
    """Of a device it would take a superuser: ``report --out /dev/null`` made a plain file of it."""
    path = tmp_path / "pipe"
    make_pipe(path)

    def build() -> None:
        with building(path) as staged:
            staged.write_bytes(b"new")

    with pytest.raises(OSError, match="it is a pipe or a device, not a file"):
        replace(path, b"new") if way == "replace" else build()
    assert stat.S_ISFIFO(os.stat(path).st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_file_and_a_link_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    for name in ("link", "new"):
        replace(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("path", [run_path, local_path])
def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Callable[[str], Path]) -> None:
    """Plan and run went to two places: pyarrow expands what pathlib does not."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path("~/run") == tmp_path / "run"
    assert path("a~/run") == Path("a~/run")
    assert path("~nobody-of-that-name/run") == Path("~nobody-of-that-name/run")
