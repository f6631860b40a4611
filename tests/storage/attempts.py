"""Attempts of processes that have ended."""

from __future__ import annotations

import os
import subprocess
import sys

from prism_base.attempts import new_attempt


def dead_attempt() -> str:
    """An attempt of a process of this machine that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    host, _, rest = new_attempt().rpartition(f"-{os.getpid()}-")
    return f"{host}-{process.pid}-{rest}"
