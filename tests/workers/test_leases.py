from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from prism_base.attempts import is_dead, new_attempt

from prism_fast.errors import RunError
from prism_fast.storage.files import ABANDONED_S, create, replace, staged_name, sweep
from prism_fast.workers import leases as module
from prism_fast.workers.leases import Lease, Leases
from tests.storage.attempts import dead_attempt


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dead() -> str:
    return dead_attempt()


def worker(folder: Path, clock: Clock, name: str = "1/2") -> Leases:
    return Leases(folder, name, 60.0, clock)


def test_one_worker_holds_a_lease(tmp_path: Path, clock: Clock) -> None:
    one, other = worker(tmp_path, clock), worker(tmp_path, clock, "2/2")
    assert one.take("000001")
    assert not other.take("000001")
    assert other.take("000002")
    one.release("000001")
    assert other.take("000001")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000001.lease", "000002.lease"]


def test_a_lease_says_whose_it_is(tmp_path: Path, clock: Clock) -> None:
    worker(tmp_path, clock).take("000001")
    lease = Lease.model_validate_json((tmp_path / "000001.lease").read_bytes())
    assert (lease.worker, lease.expires) == ("1/2", 1060.0)
    assert f"-{os.getpid()}-" in lease.attempt


def test_a_lease_that_was_not_renewed_is_anybodys(tmp_path: Path, clock: Clock) -> None:
    one, other = worker(tmp_path, clock), worker(tmp_path, clock)
    one.take("000001")
    clock.now += 59
    assert not other.take("000001")
    one.renew()
    clock.now += 59
    assert not other.take("000001")
    clock.now += 2
    assert other.take("000001")


def test_who_was_robbed_neither_renews_nor_releases(tmp_path: Path, clock: Clock) -> None:
    one, other = worker(tmp_path, clock), worker(tmp_path, clock)
    one.take("000001")
    clock.now += 61
    other.take("000001")
    stolen = (tmp_path / "000001.lease").read_bytes()
    one.renew()
    one.release("000001")
    assert (tmp_path / "000001.lease").read_bytes() == stolen


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path, clock: Clock, dead: str) -> None:
    lease = Lease(worker="9/9", attempt=dead, expires=clock.now + 1e6)
    (tmp_path / "000001.lease").write_text(lease.model_dump_json())
    assert worker(tmp_path, clock).take("000001")


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_lease_that_cannot_be_read_holds_nothing(tmp_path: Path, clock: Clock, text: str) -> None:
    (tmp_path / "000001.lease").write_text(text)
    assert worker(tmp_path, clock).take("000001")


def test_a_clock_that_is_ahead_costs_one_duration(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder whose clock is a day ahead of ours and that is not heard of again."""
    (tmp_path / "000001.lease").write_text(
        Lease(worker="9/9", attempt="elsewhere-1-0", expires=clock.now + 86400).model_dump_json()
    )
    ours, watch = worker(tmp_path, clock), Clock()
    monkeypatch.setattr(time, "monotonic", watch)
    assert not ours.take("000001")
    watch.now += 59
    assert not ours.take("000001")
    watch.now += 2
    assert ours.take("000001")


def test_a_clock_that_is_ahead_but_renews_keeps_its_lease(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, ours, watch = Clock(), worker(tmp_path, clock), Clock()
    ahead.now = clock.now + 86400
    holder = worker(tmp_path, ahead)
    holder.take("000001")
    monkeypatch.setattr(time, "monotonic", watch)
    for _ in range(5):
        assert not ours.take("000001")
        watch.now += 40
        ahead.now += 40
        holder.renew()


def test_what_is_held_for_too_long_is_anybodys(tmp_path: Path, clock: Clock) -> None:
    """A worker that hangs in a driver still has a heartbeat."""
    hung, other = Leases(tmp_path, "1/2", 60.0, clock, hold_s=100.0), worker(tmp_path, clock, "2/2")
    hung.take("000001")
    for _ in range(2):
        clock.now += 50
        hung.renew()
        assert not other.take("000001")
    clock.now += 50
    hung.renew()
    assert not other.take("000001")  # renewed for the last time 50 seconds ago
    clock.now += 20
    hung.renew()
    assert other.take("000001")
    hung.release("000001")
    assert not worker(tmp_path, clock).take("000001")


def test_the_heartbeat_renews_and_the_end_releases(tmp_path: Path) -> None:
    path = tmp_path / "000001.lease"
    with Leases(tmp_path, duration_s=0.09) as leases:
        leases.take("000001")
        first = path.read_bytes()
        deadline = time.monotonic() + 5
        while path.read_bytes() == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.read_bytes() != first
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_the_lease_does_not_stop_the_work(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "create", full)
    leases = worker(tmp_path, clock)
    assert leases.take("000001")
    leases.release("000001")


@pytest.mark.parametrize("duration_s", [1e300, 0.03])
def test_a_dead_heartbeat_ends_the_worker_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, duration_s: float
) -> None:
    """Nobody hears what a thread dies of: a worker waited for ever for leases that it lost itself."""

    def broken(leases: Leases) -> None:
        raise OverflowError("timestamp too large")

    monkeypatch.setattr(Leases, "renew", broken)
    said = r"worker 1/1 can no longer renew its leases \(OverflowError: .*launch\.lease_s"
    with Leases(tmp_path, duration_s=duration_s) as leases:
        deadline = time.monotonic() + 10
        while leases._stopped is None and time.monotonic() < deadline:
            time.sleep(0.005)
        with pytest.raises(RunError, match=said):
            leases.take("000001")
        with pytest.raises(RunError, match=said):
            leases.wait()
        with pytest.raises(RunError, match=said):
            leases.once("engines", lambda: None, lambda: 3)
    assert list(tmp_path.iterdir()) == []


def test_once_is_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.005)
    made: list[int] = []

    def make() -> list[int]:
        time.sleep(0.05)
        made.append(1)
        return made

    def work() -> None:
        found.append(Leases(tmp_path).once("engines", lambda: made or None, make))

    found: list[list[int]] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1]] * 4
    assert list(tmp_path.iterdir()) == []


def test_what_failed_once_may_be_tried_by_another(tmp_path: Path) -> None:
    def fail() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Leases(tmp_path).once("engines", lambda: None, fail)
    assert Leases(tmp_path).once("engines", lambda: None, lambda: 3) == 3


def test_of_many_that_create_a_file_one_wins(tmp_path: Path) -> None:
    won: list[int] = []
    begin = threading.Barrier(8)

    def work(number: int) -> None:
        begin.wait()
        if create(tmp_path / "file", str(number).encode() * 1000):
            won.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = won
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == str(winner).encode() * 1000


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert create(tmp_path / "file", b"first")
    assert not create(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    replace(tmp_path / "file", b"third")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"third")]


def test_only_what_is_abandoned_is_swept(tmp_path: Path, dead: str) -> None:
    old = time.time() - ABANDONED_S - 60
    names = {
        "dead": staged_name(tmp_path / "000001.tar", dead),
        "alive": staged_name(tmp_path / "000001.tar"),
        "elsewhere": staged_name(tmp_path / "000001.tar", "elsewhere-1-0a"),
        "elsewhere, long ago": staged_name(tmp_path / "000002.tar", "elsewhere-1-0a"),
        "nobody's": tmp_path / "000001.tar.tmp-0123abcd",
        "finished": tmp_path / "000001.tar",
    }
    for path in names.values():
        path.write_text("")
    os.utime(names["elsewhere, long ago"], (old, old))
    sweep(tmp_path)
    assert {name for name, path in names.items() if path.exists()} == {"alive", "elsewhere", "nobody's", "finished"}


def test_who_is_dead(dead: str) -> None:
    assert is_dead(dead)
    assert not is_dead(new_attempt())
    assert not is_dead(f"another-host-{dead}")
    assert not is_dead("0123abcd")
    assert not is_dead("")
