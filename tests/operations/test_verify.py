from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock, call

import pytest
import torch

from prism_fast.config import RunConfig
from prism_fast.dataset.record import read_record
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.tar_scan import scan
from prism_fast.dataset.writer import commit_shard, tar_bytes
from prism_fast.errors import DataError, InputError, RunError
from prism_fast.operations.verify import verify
from prism_fast.workers.synthesize import synthesize
from tests.damage import cut, edit, flip
from tests.tiny import make_teacher

Damage = Callable[[Path], object]


def as_written_before(shards: Path) -> None:
    """Records of a version that hashed neither the index nor itself."""
    for path in shards.glob("*.json"):
        record = json.loads(path.read_text())
        del record["index_sha256"], record["self_sha256"]
        path.write_text(json.dumps(record))


def copy_shard(shards: Path) -> None:
    for ext in ("tar", "idx", "json"):
        shutil.copy(shards / f"000000.{ext}", shards / f"000001.{ext}")


def test_a_finished_run_has_no_problems(finished: Path) -> None:
    verdict = verify(finished)
    assert verdict.problems == ()
    assert (verdict.shards, verdict.images, verdict.quarantined) == (3, 10, 0)
    assert verdict.size_bytes == sum(p.stat().st_size for p in (finished / "shards").glob("*.tar"))


damages = pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: cut(s / "000001.tar"), "000001.tar differs from its record; delete 000001.json"),
        (lambda s: flip(s / "000001.tar"), "000001.tar differs from its record; delete 000001.json"),
        (lambda s: flip(s / "000001.idx"), "000001.idx does not describe 000001.tar; delete 000001.json"),
        (lambda s: cut(s / "000001.idx"), "000001.idx does not describe 000001.tar; delete 000001.json"),
        (lambda s: (s / "000001.tar").unlink(), "shard 000001 has a record but no tar; delete 000001.json"),
        (lambda s: (s / "000001.idx").unlink(), "shard 000001 has a record but no index; delete 000001.json"),
        (lambda s: (s / "000001.json").unlink(), "shard 000001 is missing; run the synthesis again"),
        (lambda s: (s / "000001.json").write_text("{"), "000001.json is not a shard record; delete it"),
        (lambda s: edit(s / "000001.json", run_hash="f" * 64), "shard 000001 belongs to run ffffffffffff"),
        (lambda s: edit(s / "000001.json", quarantined=[5]), "000001.tar holds 4 samples, its record says 3"),
        (lambda s: edit(s / "000001.json", planned=3), "000001.json is the record of"),
        (copy_shard, "000001.json is the record of shard 000000; delete it"),
    ],
    ids=["cut", "bit", "idx-bit", "idx-cut", "no-tar", "no-idx", "no-record", "torn-record", "other-run", "lost",
         "planned", "copied"],
)  # fmt: skip


@damages
def test_one_damage_is_one_clear_problem_that_running_again_repairs(
    config: RunConfig, finished: Path, run: Path, damage: Damage, said: str
) -> None:
    damage(run / "shards")
    (problem,) = verify(run).problems
    assert said in problem
    assert "\n" not in problem
    (run / "shards" / "000001.json").unlink(missing_ok=True)  # what every message asks for
    assert synthesize(config, run).made_now == 4
    assert verify(run).problems == ()
    for name in ("000001.tar", "000001.idx"):
        assert (run / "shards" / name).read_bytes() == (finished / "shards" / name).read_bytes()


@damages
def test_records_without_the_hash_of_their_index_give_the_same_answers(run: Path, damage: Damage, said: str) -> None:
    as_written_before(run / "shards")
    assert verify(run).problems == ()
    damage(run / "shards")
    (problem,) = verify(run).problems
    assert said in problem


def test_the_members_of_a_tar_are_listed_only_when_its_index_is_not_the_recorded_one(
    finished: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Mock(wraps=scan)
    monkeypatch.setattr("prism_fast.dataset.integrity.scan", listed)
    assert verify(finished).problems == ()
    assert listed.mock_calls == []
    flip(run / "shards" / "000001.idx")
    assert len(verify(run).problems) == 1
    assert listed.mock_calls == [call(run / "shards" / "000001.tar")]


def test_a_sample_that_was_written_twice_is_found(run: Path) -> None:
    record = read_record(run / "shards" / "000001.json")
    rows = [Sample(i, torch.zeros(3, 8, 8, dtype=torch.uint8), 0, torch.zeros(3), {}) for i in (4, 5, 5, 6, 7)]
    tar, index = tar_bytes(rows, "png", 95)
    hashes = {"sha256": sha256(tar).hexdigest(), "index_sha256": sha256(index.encode()).hexdigest()}
    commit_shard(run / "shards", record.model_copy(update={**hashes, "size_bytes": len(tar)}), tar, index)
    assert verify(run).problems == ("000001.tar holds 5 samples, its record says 4",)


def test_every_damaged_shard_is_named(run: Path) -> None:
    flip(run / "shards" / "000000.tar")
    (run / "shards" / "000002.json").unlink()
    first, second = verify(run).problems
    assert "000000" in first
    assert "000002" in second


@pytest.mark.parametrize("name", ["000003.tar", "000003.json", "extra.idx"])
def test_a_shard_beyond_the_plan_is_named(run: Path, name: str) -> None:
    shutil.copy((run / "shards" / "000000").with_suffix(Path(name).suffix), run / "shards" / name)
    stem = Path(name).stem
    assert verify(run).problems == (f"shard {stem} is not one of the plan's 3; delete {stem}.*",)


def test_progress_counts_the_shards_in_order(finished: Path) -> None:
    seen: list[tuple[int, int]] = []
    verify(finished, lambda done, total, rate: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_every_tar_is_opened_once(finished: Path) -> None:
    opened: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and listening and str(arguments[0]).endswith(".tar"):
            opened.append(Path(str(arguments[0])).name)

    listening = True
    sys.addaudithook(watch)  # stays for the life of the process, hence the flag
    try:
        assert verify(finished).problems == ()
    finally:
        listening = False
    assert sorted(opened) == ["000000.tar", "000001.tar", "000002.tar"]


def test_a_shard_that_cannot_be_read_is_not_called_wrong(run: Path) -> None:
    (run / "shards" / "000001.idx").unlink()
    (run / "shards" / "000001.idx").mkdir()  # root may read any file, but nobody reads a directory
    with pytest.raises(RunError, match=r"cannot read shard 000001 in .*: Is a directory; make it readable"):
        verify(run)


def test_what_a_killed_attempt_left_is_no_problem(run: Path) -> None:
    (run / "shards" / "000003.tar.tmp-0a0a0a0a").write_bytes(b"")
    assert verify(run).problems == ()


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"run_hash": "a"}', '{"run_hash": "a", "config": {}}'])
def test_what_is_not_a_run_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run\.json"):
        verify(tmp_path)


def test_a_file_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(DataError, match="is not a run directory"):
            verify(path)


def test_two_runs_do_not_share_a_directory(config: RunConfig, run: Path) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    other = config.model_copy(update={"seed": 1})
    with pytest.raises(InputError) as caught:
        synthesize(other, run)
    for word in (str(run), config.run_hash()[:12], other.run_hash()[:12], "choose another --out"):
        assert word in str(caught.value)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_other_weights_do_not_go_on_with_a_run(config: RunConfig, run: Path, tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", size=24)
    models = config.models.model_copy(update={"teacher": str(teacher)})
    other = config.model_copy(update={"models": models})
    assert other.run_hash() == config.run_hash()  # a path is not part of a run, the bytes behind it are
    (run / "shards" / "000001.json").unlink()
    with pytest.raises(InputError, match=r"begun with other weights \(teacher\); choose another --out"):
        synthesize(other, run)
    assert not (run / "shards" / "000001.json").exists()
