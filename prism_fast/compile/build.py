"""Build the engines of a run: each part, by each backend, through the gate, into the store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from prism_engines.backends import backend as backend_named
from prism_engines.backends import backends
from prism_engines.backends.base import Backend
from prism_engines.backends.onnxruntime import open_onnx
from prism_engines.backends.reasons import extra, module_reasons
from prism_engines.base import Around, Engine
from prism_engines.errors import EngineBuildError, EngineError, EngineInputError, GateError
from prism_engines.gate import GateResult, Inputs, gate
from prism_engines.graph import Graph
from prism_engines.memory import is_out_of_memory, smaller
from prism_engines.record import EngineRecord
from prism_engines.spec import EngineSpec, Precision
from prism_engines.store import Store

from prism_fast.compile.parts import Part, Parts
from prism_fast.compile.probes import real_inputs
from prism_fast.synthesis.synthesizer import Synthesizer

Log = Callable[[str], None]
#: Tried in this order when no precision is asked for: the first one that the backend has and the gate passes.
PREFERRED: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
#: The same on a GPU for what makes pixels or reads them: bf16 has 8 significant bits and fp16 has 11, and near white
#: steps of 8 bits are those of the image itself. A UNet's values and a gradient may leave the range of fp16.
PREFERRED_FOR_PIXELS: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
PIXELS = ("decoder", "teacher")


def precision_of(name: str) -> Precision | None:
    """A precision by name; ``auto`` is none in particular."""
    return None if name == "auto" else cast(Precision, name)


def preferred(spec: EngineSpec) -> tuple[Precision, ...]:
    """The precisions of a part in the order in which they are tried; on the CPU it is the same for every part."""
    return PREFERRED_FOR_PIXELS if spec.on_cuda and spec.part in PIXELS else PREFERRED


@dataclass(frozen=True)
class Built:
    """One line of ``build-engines``; ``None`` where the engine cannot run here, or never breaks even."""

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


def summarise(record: EngineRecord, parts: Parts) -> Built:
    """A stored engine as a line; it breaks even when the seconds saved an image have paid for the build."""
    eager, engine = record.gate["eager_s"], record.gate["engine_s"]
    saved = (float(eager) - float(engine)) * parts.calls(record.key.part) if eager and engine else 0.0
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
        break_even_images=round(record.build_s / saved * parts.batch) if saved > 0 else None,
        gated_through=str(record.gate["gated_through"]),
    )


class Probes:
    """What the gate runs a part on, made when it is first needed: an engine found in the store needs none."""

    def __init__(self, synthesizer: Synthesizer, part: Part) -> None:
        self.synthesizer, self.part = synthesizer, part
        self._made: list[Inputs] = []

    def get(self) -> list[Inputs]:
        """Fresh random inputs, and real ones."""
        if not self._made:
            self._made = [self.part.random(1), real_inputs(self.synthesizer, self.part.spec.part)]
        return self._made


class Builder:
    """Builds the engines of one run's parts into one store."""

    def __init__(self, parts: Parts, store: Store, log: Log) -> None:
        self.parts, self.store, self.log = parts, store, log

    def candidates(self, name: str) -> list[Backend]:
        """The backends that ``auto`` (can build and run here), ``all`` (can build here) or a name stands for.

        Raises:
            EngineInputError: the name is unknown, or no backend can build here; every reason is in the message.
        """
        if name not in ("auto", "all"):
            return [backend_named(name, self.store.cache)]
        spec = self.parts.get("decoder").spec
        known = backends(self.store.cache).values()
        reasons = {b: self._reasons(b, spec) or (b.run_reasons(spec) if name == "auto" else []) for b in known}
        if usable := [b for b, why in reasons.items() if not why]:
            return usable
        raise EngineInputError("; ".join(f"{b.name}: {', '.join(why)}" for b, why in reasons.items()))

    @staticmethod
    def _reasons(backend: Backend, spec: EngineSpec) -> list[str]:
        """Why it cannot build here, or what it built could not be judged."""
        reasons = backend.reasons(spec)
        if not reasons and backend.run_reasons(spec):  # its ONNX graph is run instead
            reasons = module_reasons("onnxruntime", remedy=extra("cpu"))
        return reasons

    def build(self, part_name: str, backend: str, precision: Precision | None) -> Iterator[EngineRecord | Refused]:
        """Engines of a part by every candidate, each found in the store or built.

        Raises:
            EngineError: a backend was named and cannot give an engine.
        """
        part = self.parts.get(part_name)
        with tempfile.TemporaryDirectory(prefix="prism-graph-") as scratch:
            graph = part.make_graph(Path(scratch))
            probes = Probes(self.parts.synthesizer, part)
            for one in self.candidates(backend):
                try:
                    yield self._first(part, graph, one, precision, probes)
                except EngineError as error:
                    if backend not in ("auto", "all"):
                        raise
                    yield Refused(part_name, one.name, str(error))

    def _first(
        self, part: Part, graph: Graph, backend: Backend, precision: Precision | None, probes: Probes
    ) -> EngineRecord:
        """The first precision that works; what fails moves on to the next, and counts when none is left."""
        wanted = [precision] if precision else [p for p in preferred(part.spec) if p in backend.precisions]
        reasons: list[str] = []
        wrong: list[str] = []
        for i, one in enumerate(wanted):
            if self._was_wrong(part, backend, one, wanted[i + 1 :]):
                continue
            try:
                return self.one(part, graph, backend, one, probes, " ".join(wrong))
            except (GateError, EngineInputError, EngineBuildError) as error:
                reasons.append(str(error))
                last: EngineError = error
                if isinstance(error, GateError):
                    wrong.append(one)
                if one != wanted[-1]:
                    self.log(f"{backend.name} in {one}: {error}")
        raise type(last)("; ".join(dict.fromkeys(reasons)))

    def _was_wrong(self, part: Part, backend: Backend, precision: Precision, later: Sequence[Precision]) -> bool:
        """Whether a stored engine of a later precision was built because this one failed its gate."""
        for one in later:
            if not backend.reasons(part.at(one)) and (record := self.store.find(part.key(backend, one))):
                return precision in str(record.gate.get("instead_of") or "").split()
        return False

    def one(
        self, part: Part, graph: Graph, backend: Backend, precision: Precision, probes: Probes, instead_of: str = ""
    ) -> EngineRecord:
        """One engine, from the store or built; ``instead_of`` names the precisions that failed before.

        Raises:
            EngineInputError: the backend cannot build it here. EngineBuildError: it refused. GateError: it is wrong.
        """
        spec = part.at(precision)
        if reasons := self._reasons(backend, spec):
            raise EngineInputError(f"{backend.name} cannot build {spec.part} here: {'; '.join(reasons)}")
        key = part.key(backend, precision)
        if record := self.store.find(key):
            return record
        self.log(f"{spec.part}: building with {backend.name} in {precision}")
        start = time.monotonic()
        try:
            with self.store.staging() as folder:
                backend.build(graph, spec, folder)
                build_s = time.monotonic() - start
                result = self._gate(part, graph, backend, precision, folder, probes)
                numbers = result.numbers() | ({"instead_of": instead_of} if instead_of else {})
                return self.store.add(key, spec, folder, build_s, numbers)
        except Exception as error:  # the libraries' errors share no base class
            if not is_out_of_memory(error):
                raise
            reason = f"out of memory; {smaller(spec.part)}"
            raise EngineBuildError(f"{backend.name} cannot build {spec.part}: {reason}") from error

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
            return gate(OnHost(engine), OnHost(part.oracle, spec.device), probes.get(), outputs, precision, name, False)


class OnHost(Around):
    """An engine of some device whose outputs lie on the host, wherever its inputs do."""

    def __init__(self, engine: Engine, device: str = "cpu") -> None:
        super().__init__(engine)
        self.device = device

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The engine's outputs, on the host."""
        return tuple(out.cpu() for out in self.engine.run(*(x.to(self.device) for x in inputs)))
