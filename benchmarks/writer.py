"""What writing costs a run: seconds of a maker's last stage, which encodes, hashes, writes, flushes and renames."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.options import Options
from prism_fast.config import RunConfig, assign
from prism_fast.dataset.record import Record
from prism_fast.workers.assembly import assemble
from prism_fast.workers.leases import Leases
from prism_fast.workers.maker import ShardMaker
from prism_fast.workers.rank import Rank


class StoreClock:
    """Takes the place of a maker's ``store`` and sums its seconds.

    ``commits``: after each shard, the time, the sum, and how much of it a processor worked. The rest is waiting for the
    disk, or for a core that sampling has.
    """

    def __init__(self, maker: ShardMaker) -> None:
        self.seconds = self.busy = 0.0
        self.commits: list[tuple[float, float, float]] = []
        self._store = maker.store
        maker.store = self  # type: ignore[method-assign]

    def __call__(self, item: Any) -> Record | None:
        began, busy = time.perf_counter(), time.thread_time()
        record = self._store(item)
        now = time.perf_counter()
        self.seconds += now - began
        self.busy += time.thread_time() - busy
        if record is not None:
            self.commits.append((now, self.seconds, self.busy))
        return record


def of_guided_run(config: RunConfig, options: Options) -> harness.Row:
    """A real run of ``options.repeats`` + 1 shards; from the first one's commit to the last one's."""
    images = (options.repeats + 1) * config.synthesis.shard_size
    changes: dict[str, object] = {"synthesis.images": images, "sampling.device": options.device}
    with tempfile.TemporaryDirectory(prefix="prism-bench-") as scratch:
        out = Path(scratch) / "run"
        with Leases(out / "shards") as leases:
            worker = assemble(assign(config, changes), out, leases, store=options.store, log=harness.log)
            clock = StoreClock(worker.maker)
            records = list(worker.make_missing(Rank()))
    ends = zip(clock.commits[0], clock.commits[-1], strict=True)
    seconds, in_store, busy = (last - first for first, last in ends)
    return _row(records[1:], seconds, in_store, busy)


def _row(records: Sequence[Record], seconds: float, in_store: float, busy: float) -> harness.Row:
    images, rate = sum(r.planned for r in records), sum(r.planned for r in records) / seconds
    return {
        "work": "guided run",
        "image_format": records[0].image_ext,
        "images": images,
        "images_per_s": {"p20": None, "p50": rate, "p80": None},
        "mb_per_s": sum(r.size_bytes for r in records) / seconds / 1e6,
        "writing_share": in_store / seconds,
        "writing_busy_share": busy / seconds,
    }
