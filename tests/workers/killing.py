"""Run ``synthesize`` in forked children that kill themselves; a program of its own, see test_resume.

A process of its own because it forks: torch is imported once, on one thread, and nothing else has been started that a
fork could leave half alive. Its arguments: the configuration, a folder for the runs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from prism_fast.config import RunConfig, load_config
from prism_fast.synthesis.synthesizer import Synthesizer
from prism_fast.workers.synthesize import synthesize

TIMEOUT_S = 60


def start(work: Callable[[], object]) -> int:
    """Begin ``work`` in a child; returns its number."""
    child = os.fork()
    if child:
        return child
    signal.alarm(TIMEOUT_S)
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def end(child: int) -> int:
    """How a child ended: exit status, or minus a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forked(work: Callable[[], object]) -> int:
    """Do ``work`` in a child."""
    return end(start(work))


def at_call(number: int, act: Callable[[int | None], object]) -> None:
    """Call ``act`` before the ``number``-th call of ``os.fsync`` (with its descriptor) or ``os.replace``."""
    calls = 0

    def wrap(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: Any, **options: Any) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                act(args[0] if function is fsync else None)
            return function(*args, **options)

        return wrapped

    fsync, replace = os.fsync, os.replace
    os.fsync, os.replace = wrap(fsync), wrap(replace)  # type: ignore[assignment]


def die(descriptor: int | None) -> None:
    """The end, with half of the file that was being written lost, as after a power cut."""
    if descriptor is not None and os.readlink(f"/proc/self/fd/{descriptor}").rpartition(".tmp-")[1]:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(config: RunConfig, out: Path, number: int) -> int:
    """A run that dies before its ``number``-th durable operation."""

    def work() -> None:
        at_call(number, die)
        synthesize(config, out)

    return forked(work)


def killed_after(config: RunConfig, out: Path, seconds: float) -> int:
    """A run that is killed from outside at some moment."""
    child = start(lambda: synthesize(config, out))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return end(child)


def undisturbed_s(config: RunConfig, out: Path) -> float:
    """How long a run takes here and now, from the fork to its end."""
    began = time.monotonic()
    forked(lambda: synthesize(config, out))
    return time.monotonic() - began


def main(config_path: str, folder: Path) -> list[dict[str, Any]]:
    """Every run's name, how its killed attempts ended, and how the undisturbed last attempt ended."""
    torch.set_num_threads(1)
    config = load_config(config_path)
    first = Synthesizer.load(config)  # once, in the parent; children inherit the networks' memory

    def loaded(config: RunConfig) -> Synthesizer:
        return Synthesizer(config, first.model, first.teacher, first.hashes)

    with patch.object(Synthesizer, "load", loaded):
        synthesize(config, folder / "warm")  # what is compiled or allocated at first use is inherited too
        return attempts(config, folder)


def attempts(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    def again(out: Path) -> int:
        return forked(lambda: synthesize(config, out))

    results = []
    number, ended = 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:  # the run that survives made fewer calls than that
        number += 1
        out = folder / f"call{number:02d}"
        ended = killed_at(config, out, number)
        results.append({"out": str(out), "ends": [ended], "last": again(out)})

    out = folder / "stubborn"  # killed again and again, each time a little later
    ends = [killed_at(config, out, n) for n in (1, 3, 6, 4, 9, 2)]
    results.append({"out": str(out), "ends": ends, "last": again(out)})

    fractions = random.Random(0)
    whole = statistics.median(undisturbed_s(config, folder / f"whole{i}") for i in range(2))
    for i in range(4):
        out = folder / f"time{i}"
        ends = [killed_after(config, out, whole * fractions.uniform(0.1, 0.9))]
        results.append({"out": str(out), "ends": ends, "last": again(out)})
    return results


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
