"""The engines that a run's configuration asks for: found in the store, or built on first use, and opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from prism_engines.backends import backend as backend_named
from prism_engines.base import Around, Engine
from prism_engines.errors import EngineBuildError, EngineError, EngineInputError
from prism_engines.memory import is_out_of_memory, smaller
from prism_engines.record import EngineRecord
from prism_engines.spec import Precision
from prism_engines.store import Store, default_store
from prism_kernels import view_matrices

from prism_fast.compile.build import Builder, precision_of
from prism_fast.compile.parts import Parts
from prism_fast.errors import InputError
from prism_fast.synthesis.synthesizer import Synthesizer

Log = Callable[[str], None]


@dataclass(frozen=True)
class Compiled:
    """A run on its engines, and which engine of the store computes each part."""

    synthesizer: Synthesizer
    digests: dict[str, str]


class FromBoxes(Around):
    """A compiled energy gradient, which takes views as matrices, as the sampler calls it: with boxes (n, 5)."""

    def __init__(self, engine: Engine, synthesizer: Synthesizer) -> None:
        super().__init__(engine)
        self.size_in, self.size_out = synthesizer.sampler.image_size, synthesizer.view_size

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Energy, gradient and logits of ``(latents, labels, boxes)``."""
        latents, labels, boxes = inputs
        return self.engine.run(latents, labels, *view_matrices(boxes, self.size_in, self.size_out))


def _fastest(records: list[EngineRecord]) -> EngineRecord:
    return min(records, key=lambda r: float(r.gate["engine_s"] or float("inf")))


def _choose(builder: Builder, part: str, backend: str, precision: Precision | None) -> EngineRecord:
    """The fastest candidate."""
    found, refused = [], []
    for one in builder.build(part, backend, precision):
        if isinstance(one, EngineRecord):
            found.append(one)
        else:
            refused.append(f"{one.backend}: {one.reason}")
            builder.log(f"{part}: not by {refused[-1]}")
    if not found:
        raise EngineBuildError(
            f"no backend gives an engine of {part}; use engines.backend eager ({'; '.join(refused)})"
        )
    return _fastest(found)


def _again(builder: Builder, name: str, backend: str, recorded: str) -> EngineRecord:
    """The engine that finished shards were made with, from the store or built once more."""
    part = builder.parts.get(name)
    for one in builder.candidates(backend):
        for precision in one.precisions:
            if part.key(one, precision).digest == recorded:
                return _choose(builder, name, one.name, precision)
    raise InputError(
        f"the run was begun with engine {recorded[:12]} of {name}, and here another would go on: a library's version, "
        "the weights or the processor differ; go on where it was begun, or choose another --out"
    )


def _require_runnable(builder: Builder, backend: str, parts: Sequence[str]) -> None:
    """A named backend that cannot run here is refused before it builds for minutes."""
    if backend != "auto":
        for part in parts:
            if reasons := backend_named(backend).run_reasons(builder.parts.get(part).spec):
                raise EngineInputError(f"{backend} cannot run {part} here: {'; '.join(reasons)}")


def _open(store: Store, record: EngineRecord, device: str, streams: int) -> Engine:
    """Open an engine on the run's own device, which may have another number than the one it was built on.

    Raises:
        EngineError: it does not open, for want of memory or another reason.
    """
    spec = replace(record.spec, device=device)
    try:
        return backend_named(record.key.backend).open(spec, store.open_files(record), streams)
    except Exception as error:  # the libraries' errors share no base class
        if is_out_of_memory(error):
            why = f"out of memory; {smaller(spec.part)} or launch.streams"
            raise EngineError(f"{record.key.backend} cannot open {spec.part}: {why}") from error
        raise


def compile_run(synthesizer: Synthesizer, recorded: Mapping[str, str], log: Log, store: Path | None = None) -> Compiled:
    """The same run on the engines that ``config.engines`` names; with ``eager`` it is returned as it is.

    Args:
        synthesizer: a run on eager engines: the oracle of the gate.
        recorded: part -> digest of the engines that finished shards were made with; empty for a new run.
        log: told what is built and what is chosen.
        store: where engines are kept; the user's own store when not given.

    Raises:
        EngineError: a named backend cannot do it here; every reason is in the message.
        InputError: the run was begun with engines that are not to be had.
    """
    config = synthesizer.config.engines
    if config.backend == "eager":
        if recorded:
            raise InputError("the run was begun with compiled engines; set engines.backend as it was")
        return Compiled(synthesizer, {})
    builder = Builder(Parts(synthesizer), Store(store or default_store()), log)
    wanted = builder.parts.wanted()
    _require_runnable(builder, config.backend, wanted)
    chosen = {
        part: _again(builder, part, config.backend, recorded[part])
        if part in recorded
        else _choose(builder, part, config.backend, precision_of(config.precision))
        for part in wanted
    }
    with ThreadPoolExecutor() as pool:  # most of the time of opening is spent outside of Python
        streams = synthesizer.config.launch.streams
        devices = [builder.parts.get(part).spec.device for part in chosen]
        opening = pool.map(partial(_open, builder.store, streams=streams), chosen.values(), devices)
        opened = dict(zip(chosen, opening, strict=True))
    for part, record in chosen.items():
        log(f"{part}: {record.key.backend} {record.key.precision}, engine {record.digest[:12]}")
    if "energy_gradient" in opened:
        opened["energy_gradient"] = FromBoxes(opened["energy_gradient"], synthesizer)
    engines = replace(synthesizer.engines, **opened)
    return Compiled(synthesizer.with_engines(engines), {part: r.digest for part, r in chosen.items()})
