"""Choose the batch size: double it until memory runs out or it no longer pays; kept per device and configuration."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prism_engines.store import default_store

from prism_fast.compile.trial import OUT_OF_MEMORY
from prism_fast.config import RunConfig, assign
from prism_fast.config.base import MOST_ROWS
from prism_fast.errors import InputError, RunError
from prism_fast.storage.files import make_folder, read, replace, writing

#: A doubling that gains less than this share of images a second is not worth its memory; ours.
WORTH = 0.03
_KILLED = -signal.SIGKILL  # what the kernel's out-of-memory killer sends


@dataclass(frozen=True)
class Trial:
    """One batch size; ``images_per_s`` is None when memory ran out."""

    batch_size: int
    images_per_s: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Tuned:
    """The chosen batch size and what was tried."""

    batch_size: int
    device: str
    trials: tuple[Trial, ...]


RunTrial = Callable[[RunConfig, Path], Trial]


def device_name(device: str) -> str:
    """What the choice is stored for.

    Raises:
        InputError: there is no such GPU.
    """
    if device.startswith("cuda"):
        import torch

        try:
            return torch.cuda.get_device_name(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"device {device!r} cannot be used here ({reason}); see 'prism-fast doctor'") from error
    return f"{platform.machine()} {len(os.sched_getaffinity(0))} cores"


def tuned_file(config: RunConfig, store: Path) -> Path:
    """Where the choice for this device and configuration is kept.

    The batch size itself is no part of its name, nor is the number of a GPU: ``cuda:1`` is as good as its neighbour.
    """
    data = config.model_dump(mode="json", include={"models", "sampling", "guidance", "engines", "launch"})
    del data["sampling"]["batch_size"]
    data["sampling"]["device"] = config.sampling.device.partition(":")[0]
    text = json.dumps([device_name(config.sampling.device), data], sort_keys=True)
    return store / "batch" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def tuned_batch(config: RunConfig, store: Path) -> int:
    """The stored choice.

    Raises:
        InputError: it was not tuned here.
    """
    file = tuned_file(config, store)
    try:
        size = json.loads(read(file))["batch_size"]
        if type(size) is not int or not 1 <= size <= MOST_ROWS:
            raise ValueError(size)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # absent or damaged
        where = device_name(config.sampling.device)
        raise InputError(
            f"sampling.batch_size is auto, but {config.name} was not tuned on {where}; run 'prism-fast tune' first"
        ) from error
    return size


def with_tuned_batch(config: RunConfig, store: Path | None) -> RunConfig:
    """The same run, its ``sampling.batch_size`` looked up in the store if it is ``auto``.

    Raises:
        InputError: it is, and was not tuned here.
    """
    if config.sampling.batch_size != "auto":
        return config
    return _with_batch(config, tuned_batch(config, store or default_store()))


def _with_batch(config: RunConfig, size: int) -> RunConfig:
    return assign(config, {"sampling.batch_size": size})


def run_trial(config: RunConfig, store: Path) -> Trial:
    """Measure one batch size in a child process.

    Raises:
        RunError: the child failed for another reason than memory.
    """
    command = [sys.executable, "-m", "prism_fast.compile.trial", str(store)]
    done = subprocess.run(command, input=config.model_dump_json(), capture_output=True, text=True, check=False)
    size = config.sampling.fixed_batch_size
    if done.returncode in (OUT_OF_MEMORY, _KILLED):
        return Trial(size, None, None)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"a batch of {size} fails: {reason}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Trial(size, found["images_per_s"], found["peak_bytes"])


def tune(config: RunConfig, store: Path, largest: int, log: Callable[[str], None], run: RunTrial = run_trial) -> Tuned:
    """Try 1, 2, 4, ... up to ``largest`` and store the fastest; of two that are as fast, the smaller.

    Raises:
        RunError: not even one sample fits.
    """
    trials: list[Trial] = []
    best: Trial | None = None
    size, idle = 1, 0
    while size <= largest and idle < 2:
        trial = run(_with_batch(config, size), store)
        trials.append(trial)
        if trial.images_per_s is None:
            log(f"batch of {size}: out of memory")
            break
        log(f"batch of {size}: {trial.images_per_s:.2f} images/s, {(trial.peak_bytes or 0) / 1e9:.2f} GB")
        pays = best is None or trial.images_per_s > (1 + WORTH) * (best.images_per_s or 0)
        best, idle = (trial, 0) if pays else (best, idle + 1)
        size *= 2
    if best is None:
        raise RunError("a batch of one sample does not fit the memory; choose smaller models or another device")
    tuned = Tuned(best.batch_size, device_name(config.sampling.device), tuple(trials))
    _store(tuned_file(config, store), tuned)
    return tuned


def _store(file: Path, tuned: Tuned) -> None:
    text = json.dumps({"batch_size": tuned.batch_size, "device": tuned.device}) + "\n"
    with writing(file):
        make_folder(file.parent)
        replace(file, text.encode())
