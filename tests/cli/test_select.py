"""``select`` and the training on it as a user sees them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A finished run to select from."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_select_then_distill_and_export(prism: Command, run: Path, tiny: Path, tmp_path: Path) -> None:
    answer = prism("select", run, "--per-class", 2, "--quota", "cat=1")
    assert answer.code == 0, answer.err
    lines = dict(line.split("  ", 1) for line in answer.out.splitlines())
    assert {name: text.strip() for name, text in lines.items() if name != "run"} == {
        "accepted": "5 of 10",
        "rejected, energy": "0",
        "rejected, quota": "5",
        "rejected, disagrees": "0",
        "rejected, duplicate": "0",
        "by class": "1 to 2 accepted, median 2, 3 classes",
        "below quota": "0 classes",
    }
    assert "read, samples: 3/3" in answer.err
    student = ("--run", run, "--out", tmp_path / "student", "--set", "distill.selection=true")
    trained = prism("distill", tiny, *student)
    assert trained.code == 0, trained.err
    exported = ("export", run, "--format", "imagefolder", "--out", tmp_path / "folders", "--selected", "--json")
    assert json.loads(prism(*exported).out)["images"] == 5
    assert prism("verify", run).code == 0
    assert prism("select", run, "--keep", 1).code == 0
    assert "written with shards" in prism("distill", tiny, *student).err


def test_duplicates_show_their_progress(prism: Command, run: Path) -> None:
    answer = prism("select", run, "--duplicates", 0.5, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert (found["images"], found["classes"], found["short"]) == (10, 3, 0)
    assert found["accepted"] + found["rejected"]["duplicate"] == 10
    assert found["accepted_by_class"]["min"] >= 1
    assert "features, images: 3/3 (10)" in answer.err
    assert "duplicates, images kept: 3/3" in answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--per-class", 0), "--per-class is 0"),
        (("--per-class", 2, "--keep", 0.5), "give one of them"),
        (("--keep", 0), "--keep is 0.0"),
        (("--duplicates", 1.2), "--duplicates is 1.2"),
        (("--duplicates", 0), "--duplicates is 0.0"),
        (("--max-energy", "nan"), "--max-energy is nan"),
        (("--quota", "bird=3"), "bird"),
        (("--quota", "cat"), "CLASS=N"),
        (("--duplicates", 0.9, "--device", "nowhere"), "device 'nowhere' cannot be used here"),
    ],
)
def test_bad_input_is_one_line(prism: Command, run: Path, arguments: tuple[object, ...], message: str) -> None:
    answer = prism("select", run, *arguments)
    assert answer.code == 2
    assert message in answer.error()


def test_runs_that_cannot_be_selected_from(prism: Command, run: Path, tiny: Path, tmp_path: Path) -> None:
    student = ("--run", run, "--out", tmp_path / "student", "--set", "distill.selection=true")
    for refused in (prism("distill", tiny, *student), prism("export", run, "--format", "parquet", "--selected",
                                                            "--out", tmp_path / "out")):  # fmt: skip
        assert refused.code == 2
        assert "holds no selection; make one with 'prism-fast select" in refused.err
    (run / "shards" / "000001.json").unlink()
    unfinished = prism("select", run)
    assert unfinished.code == 2
    assert "is not finished: 1 of 3 shards are missing" in unfinished.error()
    none = prism("select", tmp_path)
    assert none.code == 2
    assert "is not a run directory" in none.error()
