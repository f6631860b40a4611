"""Each part of a run by each backend that can run here, against eager float32 on the same real inputs, a batch a call.
The energy gradient's eager is autograd. Engines come from the store, or are built and gated first.
"""

from __future__ import annotations

from functools import partial

from prism_engines.backends import backend as backend_named
from prism_engines.record import EngineRecord
from prism_engines.store import Store, default_store

from benchmarks import harness
from benchmarks.options import Options
from prism_fast.compile.build import Builder
from prism_fast.compile.parts import Parts
from prism_fast.compile.probes import real_inputs
from prism_fast.config import RunConfig, assign
from prism_fast.synthesis.synthesizer import Synthesizer

COLUMNS = ("part", "backend", "precision", "batch", "ms.p20", "ms.p50", "ms.p80", "ratio_to_eager", "build_s", "cosine")


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """A row a part and backend, eager first."""
    changes = {"sampling.device": options.device, "sampling.dtype": "float32"}
    parts = Parts(Synthesizer.load(assign(config, changes)))
    builder = Builder(parts, Store(options.store or default_store()), harness.log)
    rows: list[harness.Row] = []
    for name in parts.wanted():
        if options.only and name not in options.only:
            continue
        inputs = real_inputs(parts.synthesizer, name)
        inputs = tuple(x[: parts.get(name).spec.batch] for x in inputs)
        oracle = parts.get(name).oracle
        eager = harness.measure(partial(oracle.run, *inputs), options.repeats, options.device)
        rows.append(_row(name, "eager", "fp32", len(inputs[0]), eager, eager))
        for one in builder.build(name, "auto", None):
            if not isinstance(one, EngineRecord):
                harness.log(f"{one.part}: not by {one.backend}: {one.reason}")
                continue
            backend = backend_named(one.key.backend)
            with backend.open(one.spec, builder.store.open_files(one)) as engine:
                timing = harness.measure(partial(engine.run, *inputs), options.repeats, options.device)
            row = _row(name, one.key.backend, one.key.precision, len(inputs[0]), timing, eager)
            rows.append({**row, "build_s": one.build_s, "cosine": one.gate["cosine"]})
    return rows


def _row(
    part: str, backend: str, precision: str, batch: int, timing: harness.Timing, eager: harness.Timing
) -> harness.Row:
    ms = {"p20": 1e3 * timing.p20, "p50": 1e3 * timing.p50, "p80": 1e3 * timing.p80}
    ratio = eager.p50 / timing.p50
    return {"part": part, "backend": backend, "precision": precision, "batch": batch, "ms": ms, "ratio_to_eager": ratio}
