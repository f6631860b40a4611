"""What every study does: cells that are made once, kept in folders of their own, and rows of what was measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_fast.config import RunConfig
from prism_fast.distillation.run import distill_run
from prism_fast.distillation.task import Result
from prism_fast.evaluation.real_sets import RealSets, real_sets
from prism_fast.experiments.demo import Bars
from prism_fast.storage.files import read_if_there, replace
from prism_fast.workers.synthesize import synthesize

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A configuration, where its cells are kept, what is told how it goes, and the real pictures to measure on."""

    config: RunConfig
    out: Path
    bars: Bars
    log: Callable[[str], None] = print
    real: RealSets = field(default_factory=real_sets)

    def make(self, config: RunConfig, run: Path, name: str) -> None:
        """A run, or what is missing of it."""
        with self.bars.phase(f"synthesize {name}") as progress:
            synthesize(config, run, progress, self.out / "engines", self.log)

    def train(self, config: RunConfig, run: Path, out: Path, name: str) -> tuple[Result, ...]:
        """Students of a run, or what is missing of them."""
        with self.bars.phase(f"distil {name}") as progress:
            return distill_run(config, run, out, progress=progress)

    def cell(self, folder: Path, make: Callable[[], list[Row]]) -> list[Row]:
        """The rows of a cell: those that its folder holds, or those that are made now."""
        path = folder / "rows.json"
        if (held := read_if_there(path)) is not None:
            found: list[Row] = json.loads(held)
            return found
        rows = make()
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, rows)
        return rows

    def write(self, rows: Sequence[Row]) -> None:
        """All rows so far, as ``study.json``."""
        _write(self.out / "study.json", rows)


def spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean ± standard deviation; of one value itself."""
    found = f"{statistics.mean(values):{sign}.{digits}f}"
    return f"{found} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else found


def _write(path: Path, rows: Sequence[Row]) -> None:
    replace(path, f"{json.dumps(list(rows), indent=1)}\n".encode())
