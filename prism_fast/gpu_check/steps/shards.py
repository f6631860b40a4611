"""Two shards with and without overlap: the same bytes; how busy GPU and writer are; memory beside what was planned."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.record import Record
from prism_fast.errors import InputError
from prism_fast.estimate.count import count_run
from prism_fast.estimate.estimate import peak_memory_bytes, precision_of
from prism_fast.estimate.outline import outline_run
from prism_fast.gpu_check.busy import watching
from prism_fast.gpu_check.finding import Finding, Options, failed, passed
from prism_fast.gpu_check.memory import Memory
from prism_fast.gpu_check.small import own_run
from prism_fast.workers.assembly import assemble
from prism_fast.workers.maker import ShardMaker
from prism_fast.workers.rank import Rank
from prism_fast.workers.worker import leases_of

SHARDS, BATCHES = 2, 2
#: Memory that a plan may miss: CUDA's context and the libraries' workspaces, and a share of the rest.
UNPLANNED_BYTES, UNPLANNED_SHARE = 2**30, 0.5


class Timed(ShardMaker):
    """Counts the seconds of its last stage, which encodes and writes."""

    writing_s = 0.0

    def store(self, item: Any) -> Record | None:
        """Third stage."""
        began = time.perf_counter()
        try:
            return super().store(item)
        finally:
            self.writing_s += time.perf_counter() - began


@dataclass(frozen=True)
class Timing:
    """One run of the shards: images a second, the writer's share of the time, the GPU's, and the most memory."""

    images_per_s: float
    writer: float
    busy: float | None
    peak_bytes: int

    def said(self) -> str:
        """In words."""
        busy = "not known" if self.busy is None else f"{self.busy:.0%}"
        return f"{self.images_per_s:.3g} images/s, GPU busy {busy}, writer {self.writer:.0%}"


def check(options: Options) -> Finding:
    """Both runs, with the user's configuration if there is one."""
    config = _config(options)
    overlap = {
        "launch.pipeline_depth": max(2, config.launch.pipeline_depth),
        "launch.streams": max(2, config.launch.streams),
    }
    folder = options.folder("shards")
    store = options.folder("engines") if options.config is None else None  # engines of the user's run are kept
    plain = make(assign(config, {"launch.pipeline_depth": 0, "launch.streams": 1}), folder / "plain", store)
    overlapped = assign(config, overlap)
    both = make(overlapped, folder / "overlapped", store)
    memory, planned = _memory(overlapped, both, options)
    found = f"{config.name}: plain {plain.said()}; overlapped {both.said()}; {memory}"
    if different := differing(folder / "plain", folder / "overlapped"):
        remedy = "set launch.streams to 1 and launch.pipeline_depth to 0"
        return failed(f"{', '.join(different)} differ with and without overlap; {found}", remedy)
    if not planned:
        return failed(found, "do not trust prism-fast plan for memory here; lower sampling.batch_size")
    return passed(f"the same bytes; {found}")


def _config(options: Options) -> RunConfig:
    config = own_run(options, {})
    size = BATCHES * config.sampling.fixed_batch_size
    return assign(config, {"synthesis.shard_size": size, "synthesis.images": SHARDS * size})


def make(config: RunConfig, out: Path, store: Path | None) -> Timing:
    """Make the run, as one worker does it, and look at it."""
    device, rank = torch.device(config.sampling.device), Rank()
    memory = Memory(device)
    with leases_of(config, out, rank) as leases:
        worker = assemble(config, out, leases, store=store, log=lambda line: print(line, file=sys.stderr))
        given = worker.maker
        worker.maker = timed = Timed(given.generator, given.directory, given.engines, given.stop)
        with watching(device) as busy:
            began = time.perf_counter()
            records = list(worker.make_missing(rank))
            seconds = time.perf_counter() - began
        worker.directory.finish(config)
    images = sum(record.rows for record in records)
    return Timing(images / seconds, timed.writing_s / seconds, busy.share, memory.peak_bytes())


def _memory(config: RunConfig, made: Timing, options: Options) -> tuple[str, bool]:
    """Measured and planned memory in words, and whether the plan was near enough, which only a GPU can tell."""
    said = f"peak {made.peak_bytes / 1e9:.3g} GB"
    try:
        planned = peak_memory_bytes(config, count_run(outline_run(config)), precision_of(config))
    except InputError as error:
        return f"{said}, not planned ({error})", True
    near = made.peak_bytes <= planned * (1 + UNPLANNED_SHARE) + UNPLANNED_BYTES
    where = "" if options.cuda else " (of the whole process)"
    return f"{said}{where}, planned {planned / 1e9:.3g} GB", near or not options.cuda


def differing(one: Path, other: Path, endings: Sequence[str] = (".tar", ".idx")) -> list[str]:
    """Names of shard files that are not the same in both runs."""
    names = sorted({path.name for run in (one, other) for path in (run / "shards").iterdir() if path.suffix in endings})
    return [name for name in names if _bytes(one, name) != _bytes(other, name)]


def _bytes(run: Path, name: str) -> bytes | None:
    path = run / "shards" / name
    return path.read_bytes() if path.is_file() else None
