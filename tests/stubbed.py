"""The real synthesis, given a stub in place of networks."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from benchmarks.stub import Stub
from prism_fast.config import RunConfig
from prism_fast.prompts.row import PlanRow
from prism_fast.synthesis.synthesizer import Made
from prism_fast.workers import synthesize as real
from prism_fast.workers.assembly import assemble
from prism_fast.workers.leases import Leases
from prism_fast.workers.synthesize import Progress, Summary
from prism_fast.workers.worker import Worker


class Losing(Stub):
    """Samples of some indices are quarantined."""

    def __init__(self, config: RunConfig, lost: Container[int]) -> None:
        super().__init__(config)
        self.lost = lost

    def finish(self, rows: Sequence[PlanRow], sampled: None) -> Made:
        kept = super().finish([row for row in rows if row.index not in self.lost], sampled)
        return Made(kept.samples, tuple(row.index for row in rows if row.index in self.lost))


def synthesize(
    config: RunConfig, out: Path, progress: Progress | None = None, generator: Any = None, **options: Any
) -> Summary:
    """A run of constant images."""
    return real.synthesize(config, out, progress, generator=generator or Stub(config), **options)


def open_worker(config: RunConfig, out: Path, rank: str = "1/1", generator: Any = None) -> Worker:
    """A worker of such a run, its leases not renewed."""
    return assemble(config, out, Leases(out / "shards", rank), generator=generator or Stub(config))
