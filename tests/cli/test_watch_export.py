from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_watch(prism: Command, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    frame = json.loads(prism("watch", made, "--json").out)
    assert (frame["images"], frame["shards"], frame["quarantined"]) == (10, 3, 0)
    for arguments in (("--once",), ()):  # a finished run is one frame either way
        answer = prism("watch", made, *arguments)
        assert answer.code == 0, answer.err
        for word in ("10 of 10", "3 of 3, 0 in hand", "0 quarantined, 0 unreadable", "at first", *frame["last_images"]):
            assert word in answer.out


def test_export(prism: Command, made: Path, tmp_path: Path) -> None:
    answer = prism("export", made, "--format", "imagefolder", "--out", tmp_path / "folders", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["images"] == len(list((tmp_path / "folders").glob("*/*.png"))) == 10
    again = prism("export", made, "--format", "parquet", "--out", tmp_path / "folders")
    assert again.code == 2
    assert "is not an empty folder" in again.error()


@pytest.mark.parametrize("command", [("watch",), ("export", "--format", "parquet", "--out", "x")])
def test_no_run(prism: Command, tmp_path: Path, command: tuple[str, ...]) -> None:
    answer = prism(*command, tmp_path)
    assert answer.code == 2
    assert "is not a run directory" in answer.error()


def test_extend(prism: Command, made: Path, tiny: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made, tmp_path / "run"))
    answer = prism("extend", run, "--images", 13)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines() == [
        "shard 000002 was not full and will be made again",
        f"{run}: from 10 to 13 images, 2 of 4 shards to make with 'prism-fast synthesize ... --images 13'",
    ]
    assert prism("synthesize", tiny, "--images", 13, "--out", run).code == 0
    assert json.loads(prism("extend", run, "--images", 13, "--json").out)["shards_to_make"] == 0
    assert "is a run of 13 images, which only grows" in prism("extend", run, "--images", 3).error()


def test_extend_towards_what_lacks(prism: Command, made: Path, tiny: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made, tmp_path / "run"))
    answer = prism("extend", run, "--images", 13, "--towards", "agreement", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["images"] == 13
    assert (run / "draws-000000010.parquet").is_file()
    assert prism("synthesize", tiny, "--images", 13, "--out", run).code == 0
    assert prism("verify", run).code == 0
    assert "--student is for --towards student" in prism("extend", run, "--images", 20, "--student", tmp_path).error()
    assert "needs one; give --student DIR" in prism("extend", run, "--images", 20, "--towards", "student").error()
    assert prism("extend", run, "--images", 20, "--towards", "nothing").code == 2
