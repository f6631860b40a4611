"""What ``build-engines`` does: every wanted part by every wanted backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prism_engines.backends import backend as backend_named
from prism_engines.spec import TORCH_DTYPES
from prism_engines.store import Store, default_store

from prism_fast.compile.build import Builder, Built, Refused, precision_of, summarise
from prism_fast.compile.parts import Parts
from prism_fast.config import RunConfig, assign
from prism_fast.errors import InputError, RunError
from prism_fast.synthesis.synthesizer import Synthesizer


@dataclass(frozen=True)
class Outcome:
    """Engines in the store, and backends that gave none with their reasons."""

    built: list[Built]
    refused: list[Refused]


def build_all(
    config: RunConfig,
    backend: str,
    precision: str,
    parts: tuple[str, ...],
    store: Path | None,
    log: Callable[[str], None],
) -> Outcome:
    """Build or find the engines of ``parts``; none are those that the run computes.

    Raises:
        InputError: an unknown part or precision. RunError: no backend gives one of the parts.
        EngineError: a backend is unknown, or was named and cannot do it.
    """
    if precision not in ("auto", *TORCH_DTYPES):
        raise InputError(f"precision {precision!r} is unknown, expected one of: auto, {', '.join(TORCH_DTYPES)}")
    if backend not in ("auto", "all"):
        backend_named(backend)
    # Engines are made from float32, whatever an eager run would be computed in.
    made = Parts(Synthesizer.load(assign(config, {"sampling.dtype": "float32"})))
    if unknown := [p for p in parts if p not in made.names()]:
        raise InputError(f"part {unknown[0]!r} is unknown, expected some of: {', '.join(made.names())}")
    parts = parts or made.wanted()
    builder = Builder(made, Store(store or default_store()), log)
    outcome = Outcome([], [])
    for number, part in enumerate(parts, 1):
        log(f"[{number}/{len(parts)}] {part}")
        before = len(outcome.built)
        for one in builder.build(part, backend, precision_of(precision)):
            if isinstance(one, Refused):
                outcome.refused.append(one)
            else:
                outcome.built.append(summarise(one, made))
        if len(outcome.built) == before:
            reasons = "; ".join(f"{r.backend}: {r.reason}" for r in outcome.refused if r.part == part)
            raise RunError(f"no backend gives an engine of {part} ({reasons}); engines of other parts are kept")
    return outcome
