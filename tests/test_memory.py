"""What ``prism-fast bench memory`` measures with: a folder of noise, and the memory of a process and its children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import memory, processes
from benchmarks.pictures import write_noise
from prism_fast.errors import RunError
from prism_fast.evaluation.folder import open_folder


def test_noise_has_every_class_and_few_different_files(tmp_path: Path) -> None:
    found = open_folder(write_noise(tmp_path / "noise", 1300, size=8))
    assert (len(found), len(found.folders), found.folders[0]) == (1300, 1000, "n01440764")
    files = [Path(path) for path, _ in found.samples]
    assert len({file.stat().st_ino for file in files}) == 256
    with pytest.raises(FileExistsError):
        write_noise(tmp_path / "noise", 1, size=8)


def test_memory_is_that_of_all_processes_of_a_command() -> None:
    hungry = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = "x = b'x' * (200 << 20); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hungry, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        tree = processes.tree(parent.pid)
        assert len(tree) == 2
        assert max(processes.field(pid, "status", "VmHWM:") for pid in tree) > 200 << 10
        assert sum(processes.field(pid, "smaps_rollup", "Pss:") for pid in tree) > 200 << 10
        assert processes.field(parent.pid, "status", "VmHWM:") < 100 << 10
        parent.communicate("\n")
    assert processes.tree(parent.pid) == [parent.pid]
    assert processes.field(parent.pid, "status", "VmHWM:") == 0


def test_a_command_that_fails_has_no_peak(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"stats .* failed with exit code 2"):
        memory.peak_of(["stats", os.fspath(tmp_path)])
