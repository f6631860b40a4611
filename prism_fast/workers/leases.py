"""Leases: who makes which shard, so that workers of one directory do not repeat each other's work.

A lease is a courtesy and never needed for correctness: a shard's record is its commit, whoever writes it, and two
workers that make the same shard write the same bytes. A lease that is lost, stolen or read under a wrong clock costs
work, nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from prism_base.attempts import is_dead, new_attempt
from pydantic import BaseModel, ConfigDict, ValidationError

from prism_fast.errors import InputError, RunError
from prism_fast.storage.faults import failpoint
from prism_fast.storage.files import create, make_folder, names, patience, read, reading, remove, replace

T = TypeVar("T")
DURATION_S = 60.0
POLL_S = 0.5


class Lease(BaseModel):
    """``NAME.lease``: who works on NAME, and until when by its own clock if it is not heard of again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worker: str
    attempt: str
    expires: float


class Leases:
    """One worker's leases in a folder, renewed by a heartbeat inside ``with`` and given back at its end.

    Args:
        folder: where the leases lie, beside the records.
        worker: what to call the holder.
        duration_s: a lease that is not renewed for so long is anybody's.
        clock: seconds since the epoch.
        hold_s: a lease held for longer is renewed no more, so that a worker that hangs loses it; None: it never is.
    """

    def __init__(
        self,
        folder: Path,
        worker: str = "1/1",
        duration_s: float = DURATION_S,
        clock: Callable[[], float] = time.time,
        hold_s: float | None = None,
    ) -> None:
        self.folder, self.worker, self.duration_s, self.clock, self.hold_s = folder, worker, duration_s, clock, hold_s
        self._held: dict[str, tuple[Lease, float]] = {}
        self._seen: dict[str, tuple[Lease, float]] = {}
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._stopped: Exception | None = None

    def path(self, name: str) -> Path:
        """The file of a lease."""
        return self.folder / f"{name}.lease"

    def take(self, name: str) -> bool:
        """Whether ``name`` is now this worker's: it was free, or abandoned.

        Raises:
            RunError: nobody would renew it, because the heartbeat has ended.
        """
        self._require_beating()
        lease = Lease(worker=self.worker, attempt=new_attempt(), expires=self.clock() + self.duration_s)
        try:
            if self.path(name).exists() and not self._abandoned(name):  # most often so; nothing is written for it
                return False
            make_folder(self.folder)
            taken = create(self.path(name), _data(lease), durable=False) or self._steal(name, lease)
            failpoint("lease-taken")
        except OSError:  # a disk that refuses a lease refuses the record too, and that error says what to do
            taken = True
        if taken:
            with self._lock:
                self._held[name] = lease, self.clock()
        return taken

    def _steal(self, name: str, lease: Lease) -> bool:
        if not self._abandoned(name):
            return False
        replace(self.path(name), _data(lease), durable=False)
        return self._read(name) == lease  # of two thieves usually one; both would do no harm

    def _abandoned(self, name: str) -> bool:
        """Its process is dead, its time is over, or nothing has been heard for a lease's duration by our own clock.

        The last rule bounds what a holder's clock that is ahead of ours can cost.
        """
        lease = self._read(name)
        if lease is None or is_dead(lease.attempt) or lease.expires < self.clock():
            return True
        seen, since = self._seen.get(name, (None, 0.0))
        if seen != lease:
            self._seen[name] = (lease, time.monotonic())
            return False
        return time.monotonic() - since > self.duration_s

    def _read(self, name: str) -> Lease | None:
        try:
            return Lease.model_validate_json(read(self.path(name)))
        except (OSError, ValidationError):
            return None

    def _is_ours(self, name: str, lease: Lease) -> bool:
        found = self._read(name)
        return found is not None and found.attempt == lease.attempt

    def release(self, name: str) -> None:
        """Give ``name`` back, unless somebody else has taken it meanwhile."""
        with self._lock, suppress(OSError):
            lease, _ = self._held.pop(name, (None, 0.0))
            if lease and self._is_ours(name, lease):
                remove(self.path(name))
        failpoint("lease-released")

    def renew(self) -> None:
        """Prolong every lease that is still ours and not held for too long."""
        now, hold_s = self.clock(), self.hold_s
        with self._lock:
            for name, (lease, since) in self._held.items():
                if (hold_s is None or now - since <= hold_s) and self._is_ours(name, lease):
                    longer = lease.model_copy(update={"expires": now + self.duration_s})
                    with suppress(OSError):
                        replace(self.path(name), _data(longer), durable=False)

    def once(self, name: str, find: Callable[[], T | None], make: Callable[[], T]) -> T:
        """What ``find`` gives; if that is None, what ``make`` gives, in one worker while the others wait for it."""
        while (found := find()) is None:
            if self.take(name):
                try:
                    found = find()
                    return make() if found is None else found
                finally:
                    self.release(name)
            self.wait()
        return found

    def wait(self) -> None:
        """A moment, before asking again for what others have in hand.

        Raises:
            RunError: the heartbeat has ended.
        """
        self._require_beating()
        time.sleep(POLL_S * patience(self.folder))

    def _beat(self) -> None:
        try:
            while not self._closed.wait(self.duration_s / 3):
                self.renew()
        except Exception as error:  # in a thread nobody hears of it: whoever asks for the next lease does
            self._stopped = error

    def _require_beating(self) -> None:
        if self._stopped is not None:
            reason = f"{type(self._stopped).__name__}: {self._stopped}"
            raise RunError(
                f"worker {self.worker} can no longer renew its leases ({reason}); finished shards are kept, set "
                "launch.lease_s to a usual duration such as 60 and run the same command again"
            ) from self._stopped

    def __enter__(self) -> Self:
        threading.Thread(target=self._beat, name="leases", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        for name in list(self._held):
            self.release(name)


def require_idle(folder: Path) -> None:
    """Refuse to change a run under its workers.

    Raises:
        InputError: a lease in the folder is held.
    """
    if held := in_hand(folder):
        raise InputError(
            f"{folder.parent} is being made, {', '.join(held[:3])}{' ...' if held[3:] else ''} in hand; stop its "
            "workers first; leases of workers killed on other machines end by themselves, or delete their .lease files"
        )


def in_hand(folder: Path) -> list[str]:
    """Names of the leases in a folder whose holder may be alive."""
    leases = Leases(folder)
    with reading(folder):
        held = [name.removesuffix(".lease") for name in names(folder) if name.endswith(".lease")]
    return sorted(name for name in held if not leases._abandoned(name))


def _data(lease: Lease) -> bytes:
    return lease.model_dump_json().encode()
