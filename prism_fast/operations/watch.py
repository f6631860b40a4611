"""What a run directory says about a run that may still be going; nothing is asked of its workers, nothing written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from prism_fast.dataset.record import Record, read_record, record_files
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import DataError, RunError
from prism_fast.storage.files import names, reading

_LEASE = re.compile(r"[0-9].*\.lease")
_RECENT = 32  # shards that the rate is taken from
_SHOWN = 4  # images of the latest shard


@dataclass(frozen=True)
class Frame:
    """One look at a run.

    ``energy_first`` and ``energy_last`` are means over the first and the last tenth of the finished shards, in the
    order in which they were finished: they drift apart when what is made changes. ``in_hand`` counts leases; when there
    is work left and none is held, nobody is known to be working and there is no ``eta_s``.
    """

    images: int
    images_planned: int
    shards: int
    shards_planned: int
    in_hand: int
    quarantined: int
    unreadable: tuple[str, ...]
    images_per_s: float | None
    eta_s: float | None
    idle_s: float | None
    energy_first: float | None
    energy_last: float | None
    last_images: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether every planned shard has its record."""
        return self.shards >= self.shards_planned


@dataclass(frozen=True)
class _Finished:
    record: Record
    at: float


class Watcher:
    """Looks at a run again and again; a record never changes, so each is read once.

    Raises:
        DataError: not a run directory.
    """

    def __init__(self, path: Path) -> None:
        self.directory = RunDirectory(path)
        self.layout = self.directory.layout()
        self._read: dict[str, _Finished] = {}

    def frame(self, now: float) -> Frame:
        """The run at ``now``, seconds since the epoch."""
        self.layout, unreadable = self.directory.layout(), self._look()
        finished = sorted(self._read.values(), key=lambda f: (f.at, f.record.shard))
        records = [f.record for f in finished]
        covered = sum(r.planned for r in records)
        rate = _rate(finished)
        first, last = _energies(records)
        left = self.layout.images - covered
        with reading(self.directory.shards):
            in_hand = sum(1 for name in names(self.directory.shards) if _LEASE.fullmatch(name))
        return Frame(
            images=sum(r.rows for r in records),
            images_planned=self.layout.images,
            shards=len(records),
            shards_planned=self.layout.shards,
            in_hand=in_hand,
            quarantined=sum(len(r.quarantined) for r in records),
            unreadable=unreadable,
            images_per_s=rate,
            eta_s=left / rate if rate and (in_hand or not left) else None,
            idle_s=max(0.0, now - finished[-1].at) if finished else None,
            energy_first=first,
            energy_last=last,
            last_images=_last_images(self.directory.shards, records),
        )

    def _look(self) -> tuple[str, ...]:
        """Read the records that are new, forget those that are gone; returns the files that are no records."""
        files = {path.name: path for path in record_files(self.directory.shards)}
        self._read = {name: found for name, found in self._read.items() if name in files}
        unreadable = []
        for name in sorted(files.keys() - self._read.keys()):
            try:
                self._read[name] = _Finished(read_record(files[name]), files[name].stat().st_mtime)
            except (DataError, RunError, FileNotFoundError):
                if files[name].exists():  # else repaired meanwhile
                    unreadable.append(name)
        return tuple(unreadable)


def _rate(finished: Sequence[_Finished]) -> float | None:
    """Planned images a second over the latest shards, all workers together."""
    if not finished:
        return None
    recent = finished[-_RECENT:]
    elapsed = recent[-1].at - recent[0].at
    if elapsed > 0:
        return sum(f.record.planned for f in recent[1:]) / elapsed
    seconds = sum(f.record.seconds for f in recent)
    return sum(f.record.planned for f in recent) / seconds if seconds > 0 else None


def _energies(records: Sequence[Record]) -> tuple[float | None, float | None]:
    known = [r.energy_after_mean for r in records if r.energy_after_mean is not None]
    part = max(1, len(known) // 10)
    return (fmean(known[:part]), fmean(known[-part:])) if known else (None, None)


def _last_images(folder: Path, records: Sequence[Record]) -> tuple[str, ...]:
    """Members of the latest shard as ``TAR/MEMBER``."""
    if not records:
        return ()
    latest = records[-1]
    made = [i for i in range(latest.first_index, latest.first_index + latest.planned) if i not in latest.quarantined]
    return tuple(f"{folder / f'{latest.shard:06d}.tar'}/{i:09d}.{latest.image_ext}" for i in made[-_SHOWN:])
