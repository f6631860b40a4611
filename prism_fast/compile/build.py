"""Build the engines of a run: each part, by each backend, through the gate, into the store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from prism_engines.backends import backend as backend_named
from prism_engines.backends import backends
from prism_engines.backends.base import Backend
from prism_engines.backends.onnxruntime import open_onnx
from prism_engines.errors import EngineBuildError, EngineError, EngineInputError, GateError
from prism_engines.gate import GateResult, Inputs, gate
from prism_engines.graph import Graph
from prism_engines.record import EngineRecord
from prism_engines.spec import Precision
from prism_engines.store import Store

from prism_fast.compile.parts import Part, Parts
from prism_fast.compile.probes import real_inputs
from prism_fast.synthesis.sampler import Synthesizer

Log = Callable[[str], None]
#: Tried in this order when no precision is asked for: the first one that the backend has and the gate passes.
PREFERRED: tuple[Precision, ...] = ("bf16", "fp16", "fp32")


def precision_of(name: str) -> Precision | None:
    """A precision by name; ``auto`` is none in particular."""
    return None if name == "auto" else cast(Precision, name)


@dataclass(frozen=True)
class Built:
    """One line of ``build-engines``. ``speedup_vs_eager`` and ``break_even_images`` are ``None`` where it cannot run."""

    part: str
    backend: str
    precision: str
    key: str
    size_bytes: int
    build_s: float
    rel_error: float
    cosine: float
    speedup_vs_eager: float | None
    break_even_images: int | None
    gated_through: str


@dataclass(frozen=True)
class Refused:
    """A backend that did not give an engine of a part, and why."""

    part: str
    backend: str
    reason: str


def summarise(record: EngineRecord, batch: int) -> Built:
    """A stored engine as a line; it breaks even when the seconds saved an image have paid for the build."""
    eager, engine = record.gate["eager_s"], record.gate["engine_s"]
    saved = float(eager) - float(engine) if eager and engine else 0.0
    speedup = record.gate["speedup_vs_eager"]
    return Built(
        part=record.key.part,
        backend=record.key.backend,
        precision=record.key.precision,
        key=record.digest,
        size_bytes=record.size_bytes,
        build_s=round(record.build_s, 2),
        rel_error=float(record.gate["rel_error"] or 0),
        cosine=float(record.gate["cosine"] or 0),
        speedup_vs_eager=round(float(speedup), 3) if speedup else None,
        break_even_images=round(record.build_s / saved * batch) if saved > 0 else None,
        gated_through=str(record.gate["gated_through"]),
    )


class Probes:
    """What the gate runs a part on, made when it is first needed: an engine found in the store needs none."""

    def __init__(self, run: Synthesizer, part: Part) -> None:
        self.run, self.part = run, part
        self._made: list[Inputs] = []

    def get(self) -> list[Inputs]:
        """Fresh random inputs, and real ones."""
        if not self._made:
            self._made = [self.part.random(1), real_inputs(self.run, self.part.spec.part)]
        return self._made


class Builder:
    """Builds the engines of one run's parts into one store."""

    def __init__(self, parts: Parts, store: Store, log: Log) -> None:
        self.parts, self.store, self.log = parts, store, log

    def candidates(self, name: str) -> list[Backend]:
        """The backends that ``auto`` (can build and run here), ``all`` (can build here) or a name stands for."""
        if name not in ("auto", "all"):
            return [backend_named(name)]
        spec = self.parts.get("decoder").spec
        usable = [b for b in backends().values() if not b.reasons(spec)]
        return [b for b in usable if name == "all" or not b.run_reasons(spec)]

    def build(self, part_name: str, backend: str, precision: Precision | None) -> Iterator[EngineRecord | Refused]:
        """Engines of a part by every candidate, each found in the store or built.

        Raises:
            EngineError: a backend was named and cannot give an engine.
        """
        part = self.parts.get(part_name)
        with tempfile.TemporaryDirectory(prefix="prism-graph-") as scratch:
            graph = part.make_graph(Path(scratch))
            probes = Probes(self.parts.run, part)
            for one in self.candidates(backend):
                try:
                    yield self._first(part, graph, one, precision, probes)
                except (EngineError, MemoryError) as error:
                    reason = "out of memory; choose a smaller sampling.batch_size" if isinstance(error, MemoryError) else error
                    if backend not in ("auto", "all"):
                        raise error if isinstance(error, EngineError) else EngineBuildError(f"{one.name}: {reason}") from error
                    yield Refused(part_name, one.name, str(reason))

    def _first(
        self, part: Part, graph: Graph, backend: Backend, precision: Precision | None, probes: Probes
    ) -> EngineRecord:
        """The first precision that works; a gate that fails moves on to the next, and counts when none is left."""
        wanted = (precision,) if precision else PREFERRED
        reasons: list[str] = []
        for one in wanted:
            if precision is None and one not in backend.precisions:
                continue
            try:
                return self.one(part, graph, backend, one, probes)
            except (GateError, EngineInputError) as error:
                reasons.append(str(error))
                last: EngineError = error
        raise type(last)("; ".join(dict.fromkeys(reasons)))

    def one(
        self, part: Part, graph: Graph, backend: Backend, precision: Precision, probes: Probes
    ) -> EngineRecord:
        """One engine, from the store or built.

        Raises:
            EngineInputError: the backend cannot build it here. EngineBuildError: it refused. GateError: it is wrong.
        """
        spec = part.at(precision)
        if reasons := backend.reasons(spec):
            raise EngineInputError(f"{backend.name} cannot build {spec.part} here: {'; '.join(reasons)}")
        key = part.key(backend, precision)
        if record := self.store.find(key):
            return record
        self.log(f"{spec.part}: building with {backend.name} in {precision}")
        start = time.monotonic()
        with self.store.staging() as folder:
            backend.build(graph, spec, folder)
            build_s = time.monotonic() - start
            result = self._gate(part, graph, backend, precision, folder, probes)
            return self.store.add(key, spec, folder, build_s, result.numbers())

    def _gate(
        self,
        part: Part,
        graph: Graph,
        backend: Backend,
        precision: Precision,
        folder: Path,
        probes: Probes,
    ) -> GateResult:
        spec, outputs = part.at(precision), part.spec.outputs
        if not backend.run_reasons(spec):
            with backend.open(spec, folder) as engine:
                return gate(engine, part.oracle, probes.get(), outputs, precision, backend.name)
        # It cannot run here, but the ONNX graph it was built from can. The CPU provider has no bfloat16.
        through: Precision = "fp32" if precision == "bf16" else precision
        with tempfile.TemporaryDirectory(dir=graph.scratch) as copy, open_onnx(graph, through, Path(copy)) as engine:
            name = f"onnxruntime, the {through} graph"
            return gate(engine, part.oracle, probes.get(), outputs, precision, name, timed=False)
