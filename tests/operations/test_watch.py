"""What `watch` sees of a run, from its files alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prism_fast.errors import DataError
from prism_fast.operations.watch import Watcher
from tests.damage import edit

START = 1_000_000.0


def stamp(run: Path, seconds: tuple[float, ...] = (0.0, 10.0, 14.0)) -> None:
    """Shard i was finished at START + seconds[i]."""
    for shard, at in enumerate(seconds):
        os.utime(run / "shards" / f"{shard:06d}.json", (START + at, START + at))


def test_a_finished_run(run: Path) -> None:
    stamp(run)
    frame = Watcher(run).frame(START + 20)
    assert frame.done
    assert (frame.images, frame.images_planned, frame.shards, frame.shards_planned) == (10, 10, 3, 3)
    assert frame.images_per_s == pytest.approx((4 + 2) / 14)  # what came after the first moment that is known
    assert frame.eta_s == 0
    assert frame.idle_s == 6
    shards = run / "shards"
    assert frame.last_images == (f"{shards}/000002.tar/000000008.png", f"{shards}/000002.tar/000000009.png")


def test_a_run_that_goes_on(run: Path) -> None:
    """What is left is divided by the rate of all workers together; records that come later are added."""
    last = run / "shards" / "000002.json"
    kept = last.read_bytes()
    last.unlink()
    (run / "shards" / "000002.lease").write_text("{}")
    stamp(run, (0.0, 8.0))
    watcher = Watcher(run)
    frame = watcher.frame(START + 9)
    assert not frame.done
    assert (frame.images, frame.shards, frame.in_hand, frame.idle_s) == (8, 2, 1, 1)
    assert frame.images_per_s == pytest.approx(0.5)
    assert frame.eta_s == pytest.approx(4.0)
    last.write_bytes(kept)
    assert watcher.frame(START + 9).done


def test_energies_drift(run: Path) -> None:
    for shard, energy in enumerate((-1.0, -2.0, -5.0)):
        edit(run / "shards" / f"{shard:06d}.json", energy_after_mean=energy)
    stamp(run, (14.0, 10.0, 0.0))  # the last shard was finished first
    frame = Watcher(run).frame(START)
    assert (frame.energy_first, frame.energy_last) == (-5.0, -1.0)


def test_failures_are_counted(run: Path) -> None:
    edit(run / "shards" / "000002.json", quarantined=[9], rows=1)
    (run / "shards" / "000001.json").write_text("{")
    stamp(run)
    frame = Watcher(run).frame(START)
    assert (frame.quarantined, frame.unreadable, frame.images) == (1, ("000001.json",), 5)
    assert [Path(image).name for image in frame.last_images] == ["000000008.png"]


def test_each_record_is_read_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(run)
    first = watcher.frame(START)
    monkeypatch.setattr("prism_fast.operations.watch.read_record", lambda path: pytest.fail(f"{path} is read again"))
    assert watcher.frame(START) == first


def test_a_run_that_has_nothing_yet(run: Path) -> None:
    for file in (run / "shards").iterdir():
        file.unlink()
    frame = Watcher(run).frame(START)
    assert (frame.images, frame.images_per_s, frame.eta_s, frame.energy_last, frame.last_images) == (
        0,
        None,
        None,
        None,
        (),
    )


def test_nothing_is_written(run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in [run, *run.rglob("*")]}
    Watcher(run).frame(START)
    assert {p: p.stat().st_mtime_ns for p in [run, *run.rglob("*")]} == before


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run directory"):
        Watcher(tmp_path)
