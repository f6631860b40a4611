"""The engines that a run's configuration asks for: found in the store, or built on first use, and opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prism_engines.backends import backend as backend_named
from prism_engines.record import EngineRecord
from prism_engines.store import Store, default_store

from prism_fast.compile.build import Builder, precision_of
from prism_fast.compile.parts import Parts
from prism_fast.errors import InputError
from prism_fast.synthesis.sampler import Synthesizer

Log = Callable[[str], None]


@dataclass(frozen=True)
class Compiled:
    """A run on its engines, and which engine of the store computes each part."""

    synthesizer: Synthesizer
    digests: dict[str, str]


def _fastest(records: list[EngineRecord]) -> EngineRecord:
    return min(records, key=lambda r: float(r.gate["engine_s"] or float("inf")))


def _choose(builder: Builder, part: str, backend: str, precision: str, recorded: str | None) -> EngineRecord:
    """The engine that finished shards were made with, when there are any; else the fastest candidate."""
    found = [r for r in builder.build(part, backend, precision_of(precision)) if isinstance(r, EngineRecord)]
    if not found:
        raise InputError(f"no backend gives an engine of {part} here; see 'prism-fast doctor', or use engines.backend eager")
    if recorded is None:
        return _fastest(found)
    same = [r for r in found if r.digest == recorded]
    if not same:
        raise InputError(
            f"the run was begun with engine {recorded[:12]} of {part}, which this machine does not have; "
            "copy the store it came from, or choose another --out"
        )
    return same[0]


def compile_run(
    synthesizer: Synthesizer, recorded: Mapping[str, str], log: Log, store: Path | None = None
) -> Compiled:
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
    wanted = [p for p in config.parts if p != "energy_gradient" or synthesizer.config.guidance.enabled]
    builder = Builder(Parts(synthesizer), Store(store or default_store()), log)
    chosen = {
        part: _choose(builder, part, config.backend, config.precision, recorded.get(part)) for part in wanted
    }
    opened = {}
    for part, record in chosen.items():
        folder = builder.store.open_files(record)
        opened[part] = backend_named(record.key.backend).open(record.spec, folder)
        log(f"{part}: {record.key.backend} {record.key.precision}, engine {record.digest[:12]}")
    engines = replace(synthesizer.engines, **opened)
    return Compiled(synthesizer.with_engines(engines), {part: r.digest for part, r in chosen.items()})
