"""Hundreds of faults; see chaos.py, which runs apart because it forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.nightly
def test_whatever_happens_running_again_gives_the_undisturbed_run(tmp_path: Path) -> None:
    """Every index once, every byte the same, nothing left over, ``verify`` content: after each of the faults."""
    path = os.pathsep.join(map(str, [ROOT, *sys.path]))
    child = subprocess.run(
        [sys.executable, "-m", "tests.workers.chaos", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    report = json.loads(child.stdout.splitlines()[-1])
    print(f"{sum(report['counts'].values())} faults in {report['seconds']:.0f} s:", report["counts"])
    assert report["failures"] == [], child.stderr[-4000:]
    assert sum(report["counts"].values()) >= 200
