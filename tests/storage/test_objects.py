"""A run in an object store, here in this process's memory: the same bytes as on a disk, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.stub import Stub
from prism_fast.config import RunConfig, assign
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import InputError, PrismError, RunError
from prism_fast.operations.extend import extend
from prism_fast.operations.repair import carry_out, examine
from prism_fast.operations.stats import stats
from prism_fast.operations.verify import verify
from prism_fast.operations.watch import Watcher
from prism_fast.storage import faults, files
from prism_fast.storage.faults import POINTS, VARIABLE
from prism_fast.storage.files import create, names, patience, replace
from prism_fast.storage.objects import get
from prism_fast.storage.paths import in_store, local_path, run_path
from prism_fast.workers.assembly import assemble
from prism_fast.workers.leases import Lease, Leases
from prism_fast.workers.rank import Rank
from tests.runs import assert_whole, contents
from tests.stubbed import synthesize

pytest.importorskip("upath")
#: Not inside of anything that a store could refuse.
NO_STORE = ("shard-begun", "lease-released")


class Killed(BaseException):
    """The end of a process, as far as one can be had without one."""


@pytest.fixture
def stubbed(stubbed: RunConfig) -> RunConfig:
    """Its leases soon expire."""
    return assign(stubbed, {"launch.lease_s": 0.3})


@pytest.fixture
def out() -> Iterator[Path]:
    path = run_path("memory://bucket/run")
    yield path
    system = cast(Any, path).fs
    if system.exists("/bucket"):
        system.rm("/bucket", recursive=True)


def test_an_address_keeps_its_slashes(tmp_path: Path) -> None:
    out = run_path("memory://bucket/some/run/")
    assert str(out) == "memory://bucket/some/run"
    assert str(out / "shards" / "000001.tar") == "memory://bucket/some/run/shards/000001.tar"
    assert in_store(out / "shards")
    assert run_path(str(tmp_path)) == run_path(tmp_path) == tmp_path
    assert not in_store(tmp_path)
    assert patience(out) > patience(tmp_path)


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://", "memory:///", "https://host/run"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="is not a place for a run; give a local path, or s3://BUCKET/RUN"):
        run_path(address)


def test_what_needs_a_disk_says_to_copy() -> None:
    with pytest.raises(InputError, match=r"s3://bucket/run is in an object store.*aws s3 sync"):
        local_path("s3://bucket/run")


def test_a_whole_run(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    summary = synthesize(stubbed, out)
    assert (summary.images, summary.made_now) == (7, 7)
    assert_whole(out, stubbed_files)
    assert synthesize(stubbed, out).made_now == 0
    found = stats(out)
    assert (found.images, found.shards, found.classes) == (7, 4, 3)
    assert Watcher(out).frame(0.0).done


@pytest.fixture(params=["memory://a[1]*?/run[0-9]", "a[1]*?/run[0-9]"])
def pattern(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A run whose address has the characters of a glob pattern."""
    path = run_path(request.param if "://" in request.param else tmp_path / request.param)
    yield path
    if in_store(path):
        cast(Any, path).fs.store.clear()


def test_characters_of_a_pattern_are_no_pattern(
    stubbed: RunConfig, stubbed_files: dict[str, bytes], pattern: Path
) -> None:
    assert synthesize(stubbed, pattern).images == 7
    assert_whole(pattern, stubbed_files)  # no lease is left either
    assert synthesize(stubbed, pattern).made_now == 0
    (pattern / "shards" / "000001.tar").write_bytes(b"torn")
    (pattern / "shards" / "000009.idx").write_bytes(b"")
    assert Watcher(pattern).frame(0.0).done
    found = examine(pattern)
    assert {removal.path.name for removal in found.removals} == {"000001.json", "000009.idx"}
    carry_out(found)
    assert Watcher(pattern).frame(0.0).shards == stats(pattern).shards == 3
    assert synthesize(stubbed, pattern).made_now == 2
    assert_whole(pattern, stubbed_files)
    assert extend(pattern, 9).retired == 3


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_name_is_not_the_current_directory(given: str) -> None:
    """It is a shell's variable that nobody has set."""
    for read in (run_path, local_path):
        with pytest.raises(InputError, match=r"names no directory; give a path, or '\.' for the current directory"):
            read(given)
    assert run_path(".") == local_path(".") == Path()


def test_what_has_no_record_is_made_again(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    synthesize(stubbed, out)
    (out / "shards" / "000001.json").unlink()
    (out / "shards" / "000001.tar").write_bytes(b"torn")
    assert verify(out).problems == ("shard 000001 is missing; run the synthesis again",)
    assert synthesize(stubbed, out).made_now == 2
    assert_whole(out, stubbed_files)


def test_a_flipped_byte_is_found_and_repaired(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    synthesize(stubbed, out)
    tar = out / "shards" / "000002.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(bytes(data))
    (problem,) = verify(out).problems
    assert problem.startswith("000002.tar differs from its record")
    found = examine(out)
    assert [r.path.name for r in found.removals] == ["000002.json"]
    carry_out(found)
    assert synthesize(stubbed, out).made_now == 2
    assert_whole(out, stubbed_files)


def test_a_longer_run(stubbed: RunConfig, out: Path, tmp_path: Path) -> None:
    synthesize(stubbed, out)
    longer = stubbed.model_copy(update={"synthesis": stubbed.synthesis.model_copy(update={"images": 9})})
    assert extend(out, 9).retired == 3
    assert synthesize(longer, out).made_now == 3
    synthesize(longer, tmp_path / "longer")
    assert_whole(out, contents(tmp_path / "longer"))


def test_another_run_is_refused(stubbed: RunConfig, out: Path) -> None:
    synthesize(stubbed, out)
    before = contents(out)
    with pytest.raises(InputError, match=r"memory://bucket/run belongs to run .*choose another --out"):
        synthesize(stubbed.model_copy(update={"seed": 1}), out)
    assert contents(out) == before


def test_of_two_that_create_an_object_the_first_wins(out: Path) -> None:
    assert create(out / "object", b"first")
    assert not create(out / "object", b"second")
    assert create(out / "object", b"first")  # our own, put by a try whose answer was lost
    assert (out / "object").read_bytes() == b"first"
    replace(out / "object", b"third")
    assert (out / "object").read_bytes() == b"third"
    assert names(out) == ["object"]


def test_leases(out: Path) -> None:
    one, other = Leases(out / "shards", "1/2"), Leases(out / "shards", "2/2")
    assert one.take("000001")
    assert not other.take("000001")
    one.renew()
    one.release("000001")
    assert other.take("000001")
    assert names(out / "shards") == ["000001.lease"]


def test_a_forgotten_lease_expires(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    lease = Lease(worker="9/9", attempt="elsewhere-1-0", expires=1e12)
    (out / "shards" / "000001.lease").write_bytes(lease.model_dump_json().encode())
    synthesize(stubbed, out)
    assert_whole(out, stubbed_files)


def test_two_workers_share_the_shards(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    def work(number: int) -> None:
        made[number] = synthesize(stubbed, out, rank=Rank(number, 2)).made_now

    made: dict[int, int] = {}
    in_threads(*(partial(work, number) for number in (1, 2)))
    assert sum(made.values()) >= 7
    assert_whole(out, stubbed_files)


def test_a_shard_that_two_workers_make_at_once(stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path) -> None:
    """Every lease is given to both, and neither sees the other's record before its own commit."""
    begin = threading.Barrier(2)

    def work(number: int) -> None:
        held = Leases(out / "shards", f"{number}/2")
        held.take = lambda name: True  # type: ignore[method-assign]
        racer = assemble(stubbed, out, held, generator=Stub(stubbed))
        racer.maker.directory.has = lambda shard: False  # type: ignore[method-assign]
        begin.wait(10)
        records[number] = [record.shard for record in racer.maker.run(range(4), stubbed.launch)]

    records: dict[int, list[int]] = {}
    in_threads(*(partial(work, number) for number in (1, 2)))
    assert records == {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]}
    synthesize(stubbed, out)
    assert_whole(out, stubbed_files)


def in_threads(*work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(
    stubbed: RunConfig,
    stubbed_files: dict[str, bytes],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    number: int,
) -> None:
    """Nothing is done after it: leases stay, until they expire."""
    reached: list[str] = []

    def strike(name: str, armed: str) -> None:
        reached.extend([name] if name == point else [])
        if reached.count(point) == number and name == point:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, "armed")
        patch.setattr(faults, "_strike", strike)
        patch.setattr(Leases, "__exit__", lambda leases, *_: leases._closed.set())
        try:
            synthesize(stubbed, out)
        except Killed:
            assert len(reached) == number
        else:
            assert number > len(reached) > 0, "never came there"
    synthesize(stubbed, out)
    assert_whole(out, stubbed_files)


@pytest.mark.parametrize("point", [point for point in POINTS if point not in NO_STORE])
def test_refused_at_a_point(
    stubbed: RunConfig, stubbed_files: dict[str, bytes], out: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """One clear error, or none where the work can go on; no lease is left."""
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, f"{point}=EIO")
        patch.setattr(faults, "_counts", type(faults._counts)())
        said = ""
        try:
            synthesize(stubbed, out)
        except PrismError as error:
            said = str(error)
    assert not said or ("Input/output error" in said and "memory://bucket/run" in said)
    assert [name for name in names(out / "shards") if name.endswith(".lease")] == []
    synthesize(stubbed, out)
    assert_whole(out, stubbed_files)


def test_a_record_that_cannot_be_read_is_not_condemned(
    stubbed: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken connection must not make ``repair`` delete what is intact."""
    synthesize(stubbed, out)

    def broken(path: Path) -> bytes:
        if path.name == "000002.json":
            raise OSError(5, "Input/output error")
        return get(path)

    monkeypatch.setattr(files, "get", broken)
    with pytest.raises(RunError, match=r"cannot read memory://bucket/run/shards/000002\.json: Input/output error"):
        examine(out)
    assert RunDirectory(out).has(2)
