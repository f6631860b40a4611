"""One batch size in a process of its own: what it makes a second, and the memory it takes; prints JSON.

A process of its own because memory that runs out may end it: that must not end the search.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

from prism_fast.cli.common import prepare
from prism_fast.compile.load import compile_run
from prism_fast.config import load_config
from prism_fast.models.device import shared_threads
from prism_fast.synthesis.pipeline import pipelined
from prism_fast.synthesis.plan import build_plan
from prism_fast.synthesis.sampler import Synthesizer

#: Rounds timed after one that warms up, a batch for each stream; the fastest counts: others only make one slower.
ROUNDS = 3
OUT_OF_MEMORY = 3


def _peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def trial(document: str, store: str) -> dict[str, float]:
    """Images a second of one batch a stream, and peak memory."""
    config = load_config(document)
    run = compile_run(Synthesizer.load(config), {}, lambda line: print(line, file=sys.stderr), Path(store)).synthesizer
    streams = config.launch.streams
    rows = build_plan(config, streams * config.sampling.batch_size).to_pylist()
    seconds = []
    with shared_threads(streams):
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            for _ in pipelined(run.parts(rows), (run.make,), 0, streams):
                pass
            seconds.append(time.perf_counter() - start)
    return {"images_per_s": len(rows) / min(seconds[1:]), "peak_bytes": _peak_bytes(config.sampling.device)}


if __name__ == "__main__":
    prepare()
    try:
        print(json.dumps(trial(*sys.argv[1:])))
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(f"out of memory: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)
