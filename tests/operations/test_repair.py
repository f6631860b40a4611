from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prism_fast.config import RunConfig
from prism_fast.errors import DataError, RunError
from prism_fast.operations.repair import carry_out, examine
from prism_fast.operations.verify import verify
from prism_fast.storage.files import staged_name
from prism_fast.workers.synthesize import synthesize
from tests.damage import cut, edit, flip
from tests.runs import assert_same_run
from tests.storage.attempts import dead_attempt


def stray(shards: Path) -> None:
    for ext in ("tar", "idx", "json"):
        shutil.copy(shards / f"000000.{ext}", shards / f"000009.{ext}")


LEFT = dead_attempt()
STRAYS = {"000009.idx", "000009.json", "000009.tar"}
#: damage, the shard it destroys, the files that must go
DAMAGES: dict[str, tuple[Callable[[Path], object], int | None, set[str]]] = {
    "cut": (lambda s: cut(s / "000000.tar"), 0, {"000000.json"}),
    "bit": (lambda s: flip(s / "000001.tar"), 1, {"000001.json"}),
    "no-record": (lambda s: (s / "000002.json").unlink(), 2, set()),
    "no-index": (lambda s: (s / "000003.idx").unlink(), 3, {"000003.json"}),
    "foreign": (lambda s: edit(s / "000004.json", run_hash="f" * 64), 4, {"000004.json"}),
    "torn-record": (lambda s: (s / "000005.json").write_text("{"), 5, {"000005.json"}),
    "index-bit": (lambda s: flip(s / "000007.idx"), 7, {"000007.json"}),
    "index-cut": (lambda s: (s / "000008.idx").write_bytes(b"v1.2 1\n"), 8, {"000008.json"}),
    "stray": (stray, None, STRAYS),
    "temporary": (lambda s: staged_name(s / "000006.tar", LEFT).write_bytes(b"x"), None, {f"000006.tar.tmp-{LEFT}"}),
}
SHARDS = 9


@pytest.fixture(scope="module")
def small(config: RunConfig) -> RunConfig:
    """Nine images in as many shards: one for every damage, and one that nothing happens to."""
    sizes = config.synthesis.model_copy(update={"images": SHARDS, "shard_size": 1})
    return config.model_copy(update={"synthesis": sizes})


@pytest.fixture(scope="module")
def undisturbed(small: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    synthesize(small, out)
    return out


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def state(run: Path) -> dict[str, tuple[int, int, bytes]]:
    files = (p for p in run.rglob("*") if p.is_file())
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in files}


@pytest.mark.parametrize("names", [[n] for n in DAMAGES] + [list(DAMAGES)], ids=[*DAMAGES, "all"])
def test_what_is_condemned_goes_and_only_that_is_made_again(
    small: RunConfig, undisturbed: Path, run: Path, names: list[str]
) -> None:
    for name in names:
        DAMAGES[name][0](run / "shards")
    destroyed = {shard for name in names if (shard := DAMAGES[name][1]) is not None}
    intact = {f"{shard:06d}" for shard in set(range(SHARDS)) - destroyed}
    before = state(run)

    found = examine(run)
    assert state(run) == before
    assert {r.path.name for r in found.removals} == set().union(*(DAMAGES[name][2] for name in names))
    assert (found.shards, found.images) == (len(destroyed), len(destroyed))
    carry_out(found)
    gone = {r.path.name for r in found.removals}
    assert state(run) == {name: held for name, held in before.items() if name not in gone}
    assert all("missing" in problem for problem in verify(run).problems)

    assert synthesize(small, run).made_now == len(destroyed)
    assert {n: s for n, s in state(run).items() if n[:6] in intact} == {
        n: s for n, s in before.items() if n[:6] in intact and ".tmp-" not in n
    }
    assert_same_run(run, undisturbed)
    assert verify(run).problems == ()


def test_an_intact_run_has_nothing_to_repair(undisturbed: Path) -> None:
    found = examine(undisturbed)
    assert (found.removals, found.shards, found.images) == ((), 0, 0)


def test_a_reason_is_what_verify_says_without_the_advice(run: Path) -> None:
    flip(run / "shards" / "000001.tar")
    (removal,) = examine(run).removals
    assert removal.reason == "000001.tar differs from its record"


def test_what_cannot_be_deleted_is_one_clear_error(run: Path) -> None:
    (run / "shards" / "extra.tar").mkdir()
    with pytest.raises(RunError, match=r"cannot delete .*extra\.tar: Is a directory; delete it by hand"):
        carry_out(examine(run))


def test_only_a_run_is_repaired(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "000000.json").write_text("{}")
    with pytest.raises(DataError, match="is not a run directory"):
        examine(tmp_path)
    assert (tmp_path / "shards" / "000000.json").exists()
