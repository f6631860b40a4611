"""A worker on every GPU by ``--launch local``: each on its own, together what one alone makes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from prism_fast.config import RunConfig
from prism_fast.gpu_check.finding import Finding, Options, failed, passed, skipped
from prism_fast.gpu_check.small import small_run
from prism_fast.gpu_check.steps.shards import differing
from prism_fast.operations.verify import verify
from prism_fast.workers.launch import Job, start

#: Shards that each worker finds, of one batch.
SHARDS, BATCH = 4, 8
#: What a worker takes of its GPU at least; CUDA's context alone takes more.
LEAST_BYTES = 100 * 2**20


class Seen:
    """What is seen of the workers while they run: the GPU that each was shown, and each GPU's free memory."""

    def __init__(self, gpus: int) -> None:
        self.shown: dict[int, str] = {}
        self.before = [free_bytes(gpu) for gpu in range(gpus)]
        self.least = list(self.before)

    def look(self, done: int, planned: int, rate: float) -> None:
        """Look again; the launcher calls it about once a second."""
        self.shown |= shown_gpus(os.getpid())
        self.least = [min(least, free_bytes(gpu)) for gpu, least in enumerate(self.least)]

    def unused(self) -> list[int]:
        """GPUs of which no worker took memory."""
        return [gpu for gpu, least in enumerate(self.least) if self.before[gpu] - least < LEAST_BYTES]


def check(options: Options) -> Finding:
    """As many workers as there are GPUs."""
    gpus = torch.cuda.device_count() if options.cuda else 0
    if gpus < 2:
        return skipped([f"there is {gpus or 'no'} GPU, several workers need more; run it where there are"])
    return check_workers(options, gpus, gpus)


def check_workers(options: Options, workers: int, gpus: int) -> Finding:
    """So many workers; their runs are compared, and where they ran if there are GPUs."""
    config = _config(options, workers)
    folder, seen = options.folder("workers"), Seen(gpus)
    start("local", Job(config, folder / "many", workers, progress=seen.look, log=_log))
    start(None, Job(config, folder / "one", log=_log))
    if gpus and (wrong := _wrong_place(seen, workers)):
        return failed(wrong, "start a worker for each GPU yourself: CUDA_VISIBLE_DEVICES=i prism-fast synthesize ...")
    if problems := verify(folder / "many").problems:
        return failed(problems[0])
    if different := differing(folder / "many", folder / "one"):
        return failed(f"{len(different)} files differ from one worker's: {different[0]}", "are the GPUs all alike?")
    return passed(f"{workers} workers, each on a GPU of its own; the same bytes as one alone")


def _config(options: Options, workers: int) -> RunConfig:
    images = {"synthesis.images": workers * SHARDS * BATCH, "synthesis.shard_size": BATCH}
    return small_run(options, images | {"sampling.batch_size": BATCH})


def _wrong_place(seen: Seen, workers: int) -> str:
    """What is wrong with where the workers ran; empty when nothing is."""
    if len(seen.shown) != workers or len(set(seen.shown.values())) != workers:
        return f"{len(seen.shown)} of {workers} workers were seen, on GPUs {sorted(seen.shown.values())}"
    return f"no worker took memory of GPU {seen.unused()[0]}" if seen.unused() else ""


def shown_gpus(parent: int) -> dict[int, str]:
    """CUDA_VISIBLE_DEVICES of each child of a process that is a worker, by the child's number."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(entry) == parent and "synthesize" in _words(entry / "cmdline"):
            named = [word for word in _words(entry / "environ") if word.startswith("CUDA_VISIBLE_DEVICES=")]
            found |= {int(entry.name): named[0].partition("=")[2]} if named else {}
    return found


def _parent(process: Path) -> int:
    words = _words(process / "stat", b")")
    return int(words[-1].split()[1]) if words else 0


def _words(file: Path, between: bytes = b"\0") -> Sequence[str]:
    try:
        return [word.decode(errors="replace") for word in file.read_bytes().split(between)]
    except OSError:  # the process has ended
        return []


def free_bytes(gpu: int) -> int:
    """Free memory of a GPU, whoever took the rest."""
    return int(torch.cuda.mem_get_info(gpu)[0])


def _log(line: str) -> None:
    print(line, file=sys.stderr)
