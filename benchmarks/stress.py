"""A long run without its networks: a generator of constant 8-pixel images, and everything else the real code.

Each step has a process of its own, whose peak memory is the row's. `run` plans (its first row), then makes and commits
every shard; `writing_share` is the part of that time in which shards are encoded, hashed, written and committed, which
without networks is most of it. `verify` reads what the page cache may still hold. `indices` counts every sample of
every tar apart from the records. The `huge` rows keep the books of a run of a hundred times as many samples: its
shards, half of them with an empty record in a real directory, a part of its plan, and its estimate. `done` says what
was really done; nothing is extrapolated.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks.guided import with_assignments
from benchmarks.options import Options
from benchmarks.stub import Stub
from benchmarks.writer import StoreClock
from prism_fast.config import RunConfig, assign, load_config
from prism_fast.dataset.layout import Layout
from prism_fast.dataset.plan import as_table, plan_rows
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.tar_scan import scan
from prism_fast.estimate.count import count_run
from prism_fast.estimate.devices import find_device
from prism_fast.estimate.estimate import Request, make_estimate
from prism_fast.estimate.outline import outline_run
from prism_fast.labels.load import load_label_space
from prism_fast.operations.verify import verify
from prism_fast.workers.assembly import assemble
from prism_fast.workers.leases import Leases
from prism_fast.workers.rank import Rank

COLUMNS = (
    "work",
    "rows",
    "seconds",
    "rows_per_s",
    "mb_per_s",
    "writing_share",
    "peak_rss_mib",
    "bar",
    "met",
    "done",
)
#: A run of so many times as many samples is planned, but not made.
HUGE = 100
_CHUNKS, _CHUNK = 32, 16_384


def _row(work: str, rows: int, seconds: float, done: str) -> harness.Row:
    rss = harness.peak_rss_bytes() / 2**20
    return {
        "work": work,
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": rows / seconds,
        "peak_rss_mib": rss,
        "done": done,
    }


def _held(row: harness.Row, bar: str, met: bool) -> harness.Row:
    return {**row, "bar": bar, "met": "yes" if met else "no"}


def run(config: RunConfig, out: Path, generator: Stub | None = None) -> Iterator[harness.Row]:
    """Plan, then make and commit every shard by one worker; its samples are the stub's, or those of ``generator``."""
    directory, images = RunDirectory(out), config.synthesis.images
    began = time.perf_counter()
    directory.claim(config)
    yield _row("plan", images, time.perf_counter() - began, "plan.parquet written")
    with Leases(out / "shards") as leases:
        worker = assemble(config, out, leases, generator=generator or Stub(config))
        clock, began, size = StoreClock(worker.maker), time.perf_counter(), 0
        for record in worker.make_missing(Rank()):
            size += record.size_bytes
        seconds = time.perf_counter() - began
    directory.finish(config)
    row = _row("run", images, seconds, f"{len(clock.commits)} shards, {size / 1e6:.0f} MB")
    row |= {"mb_per_s": size / 1e6 / seconds, "writing_share": clock.seconds / seconds}
    yield _held(row, "below 1024 MiB", row["peak_rss_mib"] < 1024)


def check(config: RunConfig, out: Path) -> Iterator[harness.Row]:
    """``verify``, as the command line does it."""
    began = time.perf_counter()
    verdict = verify(out)
    seconds = time.perf_counter() - began
    row = _row("verify", verdict.images, seconds, f"{verdict.shards} shards, {len(verdict.problems)} problems")
    row["mb_per_s"] = verdict.size_bytes / 1e6 / seconds
    yield _held(row, "300 MB/s", row["mb_per_s"] >= 300 and not verdict.problems)


def indices(config: RunConfig, out: Path) -> Iterator[harness.Row]:
    """Every planned index once, counted in the tars."""
    began = time.perf_counter()
    counts = np.zeros(config.synthesis.images, np.uint8)
    for tar in (out / "shards").glob("*.tar"):
        names = [member.name for member in scan(tar).members]
        np.add.at(counts, [int(name.partition(".")[0]) for name in names if name.endswith(".cls")], 1)
    once, absent, doubled = (int(found.sum()) for found in (counts == 1, counts == 0, counts > 1))
    done = f"{once} indices once, {absent} missing, {doubled} more than once"
    yield _held(_row("indices", once, time.perf_counter() - began, done), "each once", absent == doubled == 0)


def huge(config: RunConfig, out: Path) -> Iterator[harness.Row]:
    """Books of a run of ``HUGE`` times the samples, in this order because memory only grows."""
    images = HUGE * config.synthesis.images
    longer = assign(config, {"synthesis.images": images})
    directory = _half_done(longer, out)
    began = time.perf_counter()
    missing = directory.missing()
    done = f"{len(missing)} of {directory.layout().shards} shards found missing, {directory.images_done()} samples made"
    Rank(2, 64).order(missing)
    yield _row("huge bookkeeping", images, time.perf_counter() - began, done)
    space, began = load_label_space(config.labels), time.perf_counter()
    chunk = min(_CHUNK, images // _CHUNKS)
    starts = [(images - chunk) * number // (_CHUNKS - 1) for number in range(_CHUNKS)]  # the first to the last rows
    made = sum(as_table(plan_rows(longer, space, start, start + chunk)).num_rows for start in starts)
    done = f"{made} of {images} rows made, {_CHUNKS} chunks from the first to the last, not written"
    yield _row("huge plan", made, time.perf_counter() - began, done)
    began = time.perf_counter()
    device = find_device("h100")
    plan = make_estimate(longer, count_run(outline_run(longer)), Request(images, 64, device.usd_per_hour), device)
    row = _row(
        "huge estimate", images, time.perf_counter() - began, f"{plan.shards} shards, {plan.hours:.3g} h on 64 H100"
    )
    yield _held(row, "below 1024 MiB", row["peak_rss_mib"] < 1024)


def _half_done(config: RunConfig, out: Path) -> RunDirectory:
    """A directory in which every second shard has a record; only its name is ever read."""
    sizes, directory = config.synthesis, RunDirectory(out)
    directory.shards.mkdir(parents=True)
    document = {"run_hash": config.run_hash(), "config": config.model_dump(mode="json")}
    (out / "run.json").write_text(json.dumps(document))
    for shard in range(0, Layout(config.run_hash(), sizes.images, sizes.shard_size).shards, 2):
        (directory.shards / f"{shard:06d}.json").touch()
    return directory


STEPS = {"run": run, "verify": check, "indices": indices, "huge": huge}


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """Rows of every step; ``verify`` and ``indices`` read what ``run`` made."""
    plain = with_assignments(config, ("engines.backend=eager", "guidance.margin_quantile=null"))
    chosen = [step for step in STEPS if not options.only or step in options.only]
    with tempfile.TemporaryDirectory(prefix="prism-bench-") as scratch:
        folder = Path(scratch)
        (folder / "config.json").write_text(json.dumps(plain.model_dump(mode="json")))
        return [row for step in chosen for row in _spawn(step, folder)]


def _spawn(step: str, folder: Path) -> list[harness.Row]:
    out = folder / ("huge" if step == "huge" else "run")
    document = str(folder / "config.json")
    rows: list[harness.Row] = harness.run_apart(step, "benchmarks.stress", step, document, str(out))
    for row in rows:
        harness.log(f"{row['work']}: {row['seconds']:.1f} s, {row['done']}")
    return rows


if __name__ == "__main__":
    print(json.dumps(list(STEPS[sys.argv[1]](load_config(sys.argv[2]), Path(sys.argv[3])))))
