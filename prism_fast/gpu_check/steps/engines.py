"""A backend: parts built, gated, stored, opened from the store and run on two streams; or what ``auto`` takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from prism_engines.backends import backend as backend_named
from prism_engines.backends.base import Backend
from prism_engines.base import Engine
from prism_engines.errors import EngineError, EngineInputError
from prism_engines.gate import Inputs, sample_errors
from prism_engines.record import EngineRecord
from prism_engines.store import Store

from prism_fast.compile.build import Builder
from prism_fast.compile.load import compile_run
from prism_fast.compile.parts import Parts
from prism_fast.dataset.plan import build_plan
from prism_fast.gpu_check.finding import Finding, Options, failed, passed, skipped
from prism_fast.gpu_check.small import small_run
from prism_fast.synthesis.synthesizer import Synthesizer

PARTS = ("decoder", "energy_gradient")
BATCH = 4
#: Runs of each of the two threads.
ROUNDS = 20
#: An engine that is run alone and beside itself gives the same but for the order of sums.
SAME = 1e-3


def check(options: Options) -> Finding:
    """The backend ``options.case``, or ``auto``."""
    backend = "auto" if options.case == "auto" else "eager"
    changes = {"engines.backend": backend, "sampling.batch_size": BATCH, "engines.gradient_batch": BATCH}
    synthesizer = Synthesizer.load(small_run(options, changes))
    store = options.folder("engines")
    if options.case == "auto":
        return _auto(synthesizer, store)
    parts, one = Parts(synthesizer), backend_named(options.case, Store(store).cache)
    spec = parts.get(PARTS[0]).spec
    if reasons := [*one.reasons(spec), *one.run_reasons(spec)]:
        return skipped(reasons)
    words = []
    for name in PARTS:
        record = _built(parts, name, one, store)
        difference = _reopened(parts, name, one, store, record)
        words.append(f"{_said(record)}, two streams differ by {difference:.1g}")
        if not difference <= SAME:
            return failed("; ".join(words), "set launch.streams to 1 and engines.backend to another")
    return passed("; ".join(words))


def _built(parts: Parts, name: str, backend: Backend, store: Path) -> EngineRecord:
    """The engine, which has passed its gate.

    Raises:
        EngineError: the backend cannot build it, or it computes something else.
    """
    (record,) = Builder(parts, Store(store), _log).build(name, backend.name, None)
    assert isinstance(record, EngineRecord)  # a backend that is named raises where it gives none
    return record


def _said(record: EngineRecord) -> str:
    speedup = record.gate.get("speedup_vs_eager")
    faster = f", {float(speedup):.2g} times eager" if speedup else ""
    return f"{record.key.part} in {record.key.precision}, error {float(record.gate['rel_error'] or 0):.1g}{faster}"


def _reopened(parts: Parts, name: str, backend: Backend, store: Path, record: EngineRecord) -> float:
    """How far the stored engine's runs on two streams are from its runs alone, relative."""
    part, again = parts.get(name), Store(store)
    found = again.find(record.key)
    if found is None:
        raise EngineError(f"engine {record.digest[:12]} of {name} was stored and is not found")
    with backend.open(replace(found.spec, device=part.spec.device), again.open_files(found), streams=2) as engine:
        return beside_itself(engine, [part.random(1), part.random(2)], part.spec.device)


def beside_itself(engine: Engine, inputs: Sequence[Inputs], device: str) -> float:
    """The largest relative error of runs at once, a thread and a stream for each of ``inputs``, from runs alone."""
    alone = [tuple(x.clone() for x in engine.run(*given)) for given in inputs]
    _wait(device)

    def repeat(given: Inputs, wanted: tuple[torch.Tensor, ...]) -> float:
        worst = 0.0
        with torch.cuda.stream(torch.cuda.Stream(device)) if device.startswith("cuda") else nullcontext():
            for _ in range(ROUNDS):
                rows = zip(engine.run(*given), wanted, strict=True)
                worst = max(worst, *(float(sample_errors(a, b).max()) for a, b in rows))
        return worst

    with ThreadPoolExecutor(len(inputs)) as pool:
        return max(pool.map(repeat, inputs, alone))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _auto(synthesizer: Synthesizer, store: Path) -> Finding:
    """What ``engines.backend: auto`` takes for every part, and whether a batch on these engines stays finite."""
    try:
        Builder(Parts(synthesizer), Store(store), _log).candidates("auto")
    except EngineInputError:
        return skipped(["no backend can build and run here; --only engines says of each why not"])
    compiled = compile_run(synthesizer, {}, _log, store)
    records = [Store(store).by_prefix(digest) for digest in compiled.digests.values()]
    made = compiled.synthesizer.make(build_plan(synthesizer.config, BATCH))
    found = ", ".join(f"{r.key.part}: {r.key.backend} {r.key.precision}" for r in records)
    if made.quarantined:
        return failed(f"{len(made.quarantined)} of {BATCH} samples did not stay finite on {found}")
    return passed(found)


def _log(line: str) -> None:
    print(line, file=sys.stderr)
