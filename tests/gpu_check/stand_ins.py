"""Steps that pass, fail, hang and die; which, says their case."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from prism_fast.errors import RunError
from prism_fast.gpu_check.finding import Finding, Options, failed, passed, skipped
from prism_fast.gpu_check.runner import Step


def step(name: str, limit_s: float = 60) -> Step:
    return Step(name, __name__, limit_s)


def check(options: Options) -> Finding:
    case = options.case
    if case == "pass":
        print("noise of a library")
        os.write(1, b"noise of a library in C")
        return Finding("PASS", f"on {options.device}", facts={"device": "a card", "driver": "1.2"})
    if case == "fail":
        return failed("it is wrong", "mend it")
    if case == "skip":
        return skipped(["no library; install it"])
    if case == "raise":
        raise ValueError("two\nlines")
    if case == "ours":
        raise RunError("the disk refused; make room")
    if case == "memory":
        raise MemoryError
    if case == "hang":
        time.sleep(600)
    if case == "exit":
        print("last words", file=sys.stderr)
        os._exit(3)
    if case == "nothing":
        os._exit(0)
    if case == "leave":
        return _leave(options)
    if case == "late":
        atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
        return passed("all well")
    os.kill(os.getpid(), signal.Signals[case])
    return passed("alive")


def _leave(options: Options) -> Finding:
    """A process in a group of its own, as a worker is, outlives the step that started it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
    (Path(options.work) / "child").write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGABRT)
    return passed("alive")
