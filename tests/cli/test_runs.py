"""``repair``, ``stats`` and ``merge`` as a user sees them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.fixture
def torn(made: Path, tmp_path: Path) -> Path:
    """A run whose second tar is empty."""
    run = Path(shutil.copytree(made, tmp_path / "torn"))
    (run / "shards" / "000001.tar").write_bytes(b"")
    return run


def test_repair_lists_then_deletes(prism: Command, torn: Path) -> None:
    record = torn / "shards" / "000001.json"
    listed = "000001.json: 000001.tar differs from its record"
    dry = prism("repair", torn, "--dry-run")
    assert dry.code == 0
    assert dry.out.splitlines() == [
        listed,
        "1 files to delete, 4 images in 1 shards to make with 'prism-fast synthesize'",
    ]
    assert record.exists()
    as_json = json.loads(prism("repair", torn, "--dry-run", "--json").out)
    assert as_json["removals"] == [{"path": str(record), "reason": "000001.tar differs from its record"}]
    assert (as_json["shards"], as_json["images"], as_json["deleted"]) == (1, 4, False)
    assert record.exists()
    assert prism("repair", torn).out.splitlines() == [
        listed,
        "1 files deleted, 4 images in 1 shards to make with 'prism-fast synthesize'",
    ]
    assert not record.exists()
    assert json.loads(prism("repair", torn, "--json").out) == {
        "removals": [],
        "shards": 1,
        "images": 4,
        "deleted": True,
    }


def test_stats_counts_what_the_records_say(prism: Command, made: Path) -> None:
    answer = prism("stats", made)
    assert (answer.code, answer.err) == (0, "")
    lines = dict(line.split("  ", 1) for line in answer.out.splitlines())
    assert lines["images"].strip() == "10 of 10, 0 quarantined"
    assert lines["shards"].strip().startswith("3 of 3, ")
    assert lines["images by class"].strip() == "3 to 4, mean 3.3, 3 classes"
    found = json.loads(prism("stats", made, "--json").out)
    assert found["images_by_class"] == {"min": 3, "mean": pytest.approx(10 / 3), "max": 4}
    assert (found["images"], found["shards_planned"]) == (10, 3)
    assert f"{found['energy_after_mean']:.2f}" == lines["energy after"].strip()


def test_merge_joins_parts_and_refuses_another_run(prism: Command, made: Path, tmp_path: Path) -> None:
    first, rest, out = (tmp_path / name for name in ("first", "rest", "out"))
    for run, gone in ((first, ("000001", "000002")), (rest, ("000000",))):
        shutil.copytree(made, run)
        for shard in gone:
            (run / "shards" / f"{shard}.json").unlink()
    answer = prism("merge", first, "--out", out)
    assert answer.code == 0, answer.err
    assert answer.out == f"1 of 3 shards, 4 images in {out} (1 linked, 0 copied)\n"
    as_json = json.loads(prism("merge", first, rest, "--out", out, "--json").out)
    wanted = {"shards": 3, "shards_planned": 3, "images": 10, "linked": 2, "copied": 0, "out": str(out)}
    assert as_json == wanted
    assert prism("verify", out).code == 0

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text(
        (made / "run.json").read_text().replace('"run_hash": "', '"run_hash": "0')
    )
    refused = prism("merge", first, rest, "--out", tmp_path / "other")
    assert refused.code == 2
    assert "choose another --out" in refused.error()
