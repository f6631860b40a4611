"""Run one step in a process of its own, which may crash, hang or run out of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prism_fast.gpu_check.finding import Finding, Options, failed, one_line

#: A step ends itself at its limit and says where it was; what does not even do that is killed so much later.
GRACE_S = 10.0
_FROM_OUTSIDE = "something ended it from outside, most often the kernel for want of host memory (dmesg says so)"


@dataclass(frozen=True)
class Step:
    """A step: its name, ``GROUP`` or ``GROUP:CASE``; the module whose ``check`` it is; and its time limit.

    ``config_limit_s`` is the limit where the step takes the user's configuration.
    """

    name: str
    module: str
    limit_s: float
    config_limit_s: float | None = None

    @property
    def group(self) -> str:
        """The name without its case."""
        return self.name.partition(":")[0]

    def limit(self, options: Options) -> float:
        """Seconds that it may take."""
        return self.config_limit_s if options.config and self.config_limit_s else self.limit_s


def run_step(step: Step, options: Options, messages: Path) -> tuple[Finding, float]:
    """What the step finds, and the seconds it took; what its process prints goes to the file ``messages``."""
    options = replace(options, case=step.name.partition(":")[2])
    answer, limit, began = messages.with_suffix(".json"), step.limit(options), time.monotonic()
    command = [sys.executable, "-m", "prism_fast.gpu_check", step.module, json.dumps(asdict(options)), str(limit)]
    with open(answer, "wb") as out, open(messages, "wb") as err:
        # Files, not pipes: what a crashed process started may live on and hold a pipe open.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, env=os.environ
        )
    try:
        process.wait(limit + GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end_session(process)
    seconds = time.monotonic() - began
    finding = _read(answer)
    answer.unlink()
    if finding and (process.returncode == 0 or finding.status == "FAIL"):
        return finding, seconds
    ended = _ended(process.returncode, seconds >= limit, limit, messages)
    return replace(ended, found=f"{finding.found}; but then {ended.found}") if finding else ended, seconds


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End the step's process, and all that it started and left."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(ProcessLookupError, PermissionError):  # it has ended meanwhile, or is not ours
                if os.getsid(int(entry.name)) == process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
    process.wait()


def _read(answer: Path) -> Finding | None:
    """The step's own answer; None if it ended before it had one."""
    text = answer.read_bytes()
    return Finding(**json.loads(text)) if text else None


def _ended(code: int, late: bool, limit: float, messages: Path) -> Finding:
    """The finding about a process that gave none."""
    if late:
        return failed(f"it took more than {limit:g} s and was ended", "its messages end with where each thread was")
    if code < 0:
        name = signal.Signals(-code).name
        remedy = _FROM_OUTSIDE if -code in (signal.SIGKILL, signal.SIGTERM) else "a library crashed"
        return failed(f"its process was ended by {name}", f"{remedy}; its messages say where it was")
    lines = messages.read_text(errors="replace").strip().splitlines() or ["no message"]
    return failed(f"its process ended with exit code {code}: {one_line(lines[-1])}")
