"""Several worker processes on this machine, each ``prism-fast synthesize --worker i/N``; a killed one starts again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from prism_fast.errors import InputError
from prism_fast.workers.launch.job import Job
from prism_fast.workers.rank import Rank
from prism_fast.workers.share import cores_of, gpu_of, with_own_gpu

_POLL_S = 0.5


def command(job: Job, folder: Path, rank: Rank) -> list[str]:
    """What starts one worker, of the configuration in ``folder``."""
    program = [sys.executable, "-m", "prism_fast", "synthesize", str(folder / "config.yaml"), "--out", str(job.out)]
    return [*program, "--worker", str(rank), *(["--store", str(job.store)] if job.store else [])]


class _Slot:
    """One worker's process, and how often it may still be started again."""

    def __init__(self, job: Job, folder: Path, number: int) -> None:
        self.job, self.number, self.restarts = job, number, job.config.launch.restarts
        self.messages = folder / f"worker-{number + 1}.log"
        self.command = command(job, folder, Rank(number + 1, job.workers))
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        ours = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores_of(self.number, self.job.workers))  # inherited by the child
        try:
            with open(self.messages, "wb") as messages:
                return subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=messages,
                    env=os.environ | gpu_of(self.number, self.job.config.sampling.device),
                    process_group=0,  # a terminal's Ctrl-C is for the launcher, which passes it on
                )
        finally:
            os.sched_setaffinity(0, ours)

    def alive(self) -> bool:
        """Whether it works, started again if it was killed."""
        code = self.process.poll()
        if code is None:
            return True
        if code >= 0 or self.job.stop.asked or not self.restarts:
            return False
        self.restarts -= 1
        self.job.log(f"worker {self.number + 1} was killed by signal {-code} and is started again")
        self.process = self._start()
        return True

    def complaint(self) -> str | None:
        """Its last message, if it failed."""
        if not self.process.returncode:
            return None
        lines = self.messages.read_text(errors="replace").strip().splitlines() or ["no message"]
        return f"worker {self.number + 1} ended with exit code {self.process.returncode}: {lines[-1]}"


def launch(job: Job, watch: Callable[[], None]) -> None:
    """Run ``job.workers`` processes until each has ended; whatever ends this one, they end too.

    Raises:
        InputError: every worker refused its input, or ``sampling.device`` names a GPU that is not there.
    """
    with tempfile.TemporaryDirectory(prefix="prism-fast-") as name, job.stop.patient():
        config = with_own_gpu(job.config)
        (Path(name) / "config.yaml").write_text(config.model_dump_json(), encoding="utf-8")  # JSON is YAML
        slots: list[_Slot] = []
        job.stop.last_words = lambda: _end(slots)
        try:
            for number in range(job.workers):
                slots.append(_Slot(job, Path(name), number))
            _supervise(job, slots, watch)
        finally:
            _end(slots)
        complaints = [complaint for slot in slots if (complaint := slot.complaint())]
        for complaint in complaints:
            job.log(complaint)
        if all(slot.process.returncode == InputError.exit_code for slot in slots):
            raise InputError(f"every worker refused its input; {complaints[-1]}")


def _supervise(job: Job, slots: list[_Slot], watch: Callable[[], None]) -> None:
    told = False
    while sum(slot.alive() for slot in slots):
        if job.stop.signal and not told:
            told = True
            for slot in slots:
                slot.process.send_signal(job.stop.signal)
        watch()
        time.sleep(_POLL_S)
    watch()


def _end(slots: list[_Slot]) -> None:
    for slot in slots:
        slot.process.kill()  # nothing happens to one that has ended
