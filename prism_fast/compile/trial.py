"""One batch size in a process of its own: what it makes a second, and the memory it takes; JSON in, JSON out.

A process of its own because memory that runs out may end it: that must not end the search.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from prism_engines.memory import is_out_of_memory

from prism_fast.compile.load import compile_run
from prism_fast.config import RunConfig
from prism_fast.dataset.plan import build_plan
from prism_fast.models.device import shared_threads
from prism_fast.process import prepare
from prism_fast.synthesis.overlap import pipelined
from prism_fast.synthesis.synthesizer import Synthesizer

#: Rounds timed after one that warms up, of as many batches as a run has in flight; the fastest counts: others only
#: make one slower.
ROUNDS = 3
OUT_OF_MEMORY = 3


def _peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def trial(config: RunConfig, store: Path) -> dict[str, float]:
    """Images a second and peak memory, batches overlapping as they do in a run."""
    eager = Synthesizer.load(config)
    synthesizer = compile_run(eager, {}, lambda line: print(line, file=sys.stderr), store).synthesizer
    depth, streams = config.launch.pipeline_depth, config.launch.streams
    rows = build_plan(config, (depth + streams) * config.sampling.fixed_batch_size)
    stages = (lambda part: (part, synthesizer.denoise(part)), lambda pair: synthesizer.finish(*pair))
    seconds = []
    with shared_threads(streams):
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            for _ in pipelined(synthesizer.parts(rows), stages, depth, streams):
                pass
            seconds.append(time.perf_counter() - start)
    return {"images_per_s": len(rows) / min(seconds[1:]), "peak_bytes": _peak_bytes(config.sampling.device)}


if __name__ == "__main__":
    prepare()
    try:
        print(json.dumps(trial(RunConfig.model_validate_json(sys.stdin.read()), Path(sys.argv[1]))))
    except Exception as error:  # the libraries' errors share no base class
        if not is_out_of_memory(error):
            raise
        print(f"out of memory: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)
