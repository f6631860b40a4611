"""What ``prism-fast bench stress`` measures with: a missing or doubled index is seen, the clock only listens."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import stress
from benchmarks.stub import Stub, stub_config
from benchmarks.writer import StoreClock
from prism_fast.workers.assembly import assemble
from prism_fast.workers.leases import Leases
from prism_fast.workers.rank import Rank
from tests.stubbed import synthesize


def test_an_index_that_is_missing_or_doubled_is_counted(tmp_path: Path) -> None:
    config, out = stub_config(tmp_path), tmp_path / "run"
    synthesize(config, out)
    assert [row["met"] for row in stress.indices(config, out)] == ["yes"]
    shutil.copy(out / "shards" / "000000.tar", out / "shards" / "000001.tar")
    (row,) = stress.indices(config, out)
    assert (row["met"], row["done"]) == ("no", "3 indices once, 2 missing, 2 more than once")


def test_the_clock_counts_every_batch_and_changes_nothing(tmp_path: Path) -> None:
    config, out = stub_config(tmp_path), tmp_path / "run"
    with Leases(out / "shards") as leases:
        worker = assemble(config, out, leases, generator=Stub(config))
        clock = StoreClock(worker.maker)
        assert [record.rows for record in worker.make_missing(Rank())] == [2, 2, 2, 1]
    times, sums, busy = zip(*clock.commits, strict=True)
    assert len(sums) == 4
    assert list(sums) == sorted(sums)
    assert list(times) == sorted(times)
    assert 0 < busy[-1] <= sums[-1] == clock.seconds
