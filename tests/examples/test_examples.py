"""Every example runs to its end, in a process of its own and with what a reader would type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
#: On one core: other tests run beside it, and threads that wait for each other take many times as long.
_ON_ONE_CORE = """
import os, runpy, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
sys.argv = sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _run(name: str, folder: Path, *arguments: str) -> str:
    cores = sorted(os.sched_getaffinity(0))
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
    command = [sys.executable, "-c", _ON_ONE_CORE, str(cores[worker % len(cores)]), str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_example_is_run_here() -> None:
    called = set(re.findall(r'_run\("(\w+\.py)"', Path(__file__).read_text()))
    assert called == {path.name for path in EXAMPLES.glob("*.py")}


def test_each_example_says_how_it_is_run() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert f"    python examples/{path.name}" in path.read_text()


@pytest.mark.slow
def test_own_teacher(tmp_path: Path) -> None:
    said = _run("own_teacher.py", tmp_path, "--out", "colours")
    assert "24 images" in said
    assert "problems: none" in said
    assert int(re.search(r"teacher: (\d+)%", said)[1]) > 90  # type: ignore[index]
    assert int(re.search(r"student: (\d+)%", said)[1]) > 40  # type: ignore[index]  # a third by chance
    assert (tmp_path / "colours" / "run" / "report.html").is_file()


def test_read_shards(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    assert _run("read_shards.py", tmp_path, str(finished)) == "10 images in 3 shards: the same by all three\n"


def test_read_shards_makes_a_run_if_none_is_given(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    assert _run("read_shards.py", tmp_path) == "12 images in 3 shards: the same by all three\n"


@pytest.mark.slow
def test_own_objective(tmp_path: Path) -> None:
    margins = dict(re.findall(r"(\w+).* mean margin +(-?[\d.]+)", _run("own_objective.py", tmp_path)))
    assert set(margins) == {"unguided", "cross_entropy", "margin"}
    assert float(margins["margin"]) < float(margins["unguided"])
