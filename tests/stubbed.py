"""The real synthesis, given the stub in place of networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.stub import Stub
from prism_fast.config import RunConfig
from prism_fast.workers import synthesize as real
from prism_fast.workers.assembly import assemble
from prism_fast.workers.leases import Leases
from prism_fast.workers.synthesize import Summary
from prism_fast.workers.worker import Worker


def synthesize(config: RunConfig, out: Path, *arguments: Any, generator: Any = None, **options: Any) -> Summary:
    """A run of constant images."""
    return real.synthesize(config, out, *arguments, generator=generator or Stub(config), **options)


def open_worker(config: RunConfig, out: Path, rank: str = "1/1", generator: Any = None) -> Worker:
    """A worker of such a run, its leases not renewed."""
    return assemble(config, out, Leases(out / "shards", rank), generator=generator or Stub(config))
