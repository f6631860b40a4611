"""Which samples are accepted, why the others are not, and that nothing but the run and the settings decides it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from prism_fast.dataset import shard_set
from prism_fast.dataset.ledger import ledger_path
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.writer import tar_bytes
from prism_fast.errors import DataError, InputError
from prism_fast.models.classifier import load_classifier
from prism_fast.selection.features import write_features
from prism_fast.selection.select import AcceptedByClass, named_quotas, parse_quotas, select
from prism_fast.selection.settings import Settings
from prism_fast.selection.stored import Progress, read_stored
from tests.damage import edit
from tests.selection.crafted import Row, image, sample, write_run

#: Classes 0 and 1, energies with ties, what the teacher saw.
PLAIN = [
    Row(0, 3.0, 0), Row(1, 0.5, 1), Row(0, 1.0, 0), Row(1, 0.1, 0),
    Row(0, 1.0, 0), Row(1, 0.5, 1), Row(0, 2.0, 1), Row(0, 1.0, 0),
    Row(1, 0.2, 1),
]  # fmt: skip
#: 0 and 3 are one picture, which 1 shares in another class; 5 and 9 lie in different shards.
ALIKE = [
    Row(0, 2.0, picture=7), Row(1, 1.0, picture=7), Row(0, 3.0, picture=8), Row(0, 1.0, picture=7),
    Row(1, 2.0, picture=9), Row(1, 3.0, picture=10), Row(0, 4.0, picture=11), Row(2, 1.0, picture=8),
    Row(2, 2.0, picture=12), Row(1, 2.5, picture=10),
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "plain", PLAIN)


def rows(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.ParquetFile(ledger_path(run)).read().to_pylist()
    return found


def accepted(run: Path, **values: Any) -> list[int]:
    select(run, Settings(**values))
    return [row["index"] for row in rows(run) if row["accepted"]]


def reasons(run: Path, **values: Any) -> dict[int, str]:
    select(run, Settings(**values))
    return {row["index"]: row["reason"] for row in rows(run) if not row["accepted"]}


def test_the_lowest_energies_come_first_and_ties_go_by_index(run: Path) -> None:
    assert accepted(run, per_class=1) == [2, 3]
    assert accepted(run, per_class=2) == [2, 3, 4, 8]
    assert accepted(run, per_class=3) == [1, 2, 3, 4, 7, 8]
    assert accepted(run) == list(range(9))


def test_a_share_is_of_each_class(run: Path) -> None:
    assert accepted(run, keep=0.4) == [2, 3, 4, 8]  # two of five, two of four


def test_one_class_can_have_a_quota_of_its_own(run: Path) -> None:
    quotas = named_quotas(run, parse_quotas(["dog=1", "cat=0"]))
    assert quotas == ((0, 0), (1, 1))
    assert accepted(run, per_class=4, quotas=quotas) == [3]


@pytest.mark.parametrize(
    ("text", "message"), [("bird=1", "bird"), ("cat=1=2=", "CLASS=N"), ("cat", "CLASS=N"), ("cat=-1", "CLASS=N")]
)
def test_a_quota_names_a_class_and_a_number(run: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        named_quotas(run, parse_quotas([text]))


def test_every_rejected_sample_has_its_first_reason(run: Path) -> None:
    found = reasons(run, per_class=2, max_energy=2.0, agree=True)
    assert found == {0: "energy", 3: "disagrees", 5: "quota", 6: "disagrees", 7: "quota"}
    assert {row["duplicate_of"] for row in rows(run)} == {None}


def test_an_energy_that_is_no_number_is_too_high(tmp_path: Path) -> None:
    run = write_run(tmp_path / "odd", [Row(0, float("nan")), Row(0, 9.0), Row(1, None)])
    assert reasons(run) == {0: "energy", 2: "energy"}


def test_the_ledger_is_what_is_stored(run: Path) -> None:
    select(run, Settings(per_class=1))
    for index, (row, made) in enumerate(zip(rows(run), PLAIN, strict=True)):
        assert (row["index"], row["shard"], row["label"], row["energy"]) == (index, index // 4, made.label, made.energy)
    facts = json.loads(pq.ParquetFile(ledger_path(run)).schema_arrow.metadata[b"prism-fast"])
    assert facts["run_hash"] == RunDirectory(run).layout().run_hash
    assert facts["settings"]["per_class"] == 1
    assert len(facts["data"]) == 64


def test_the_numbers_add_up(run: Path) -> None:
    found = select(run, Settings(per_class=3, max_energy=1.0))
    assert (found.images, found.accepted, found.classes) == (9, 6, 3)
    assert found.rejected == {"energy": 2, "quota": 1, "disagrees": 0, "duplicate": 0}
    assert found.accepted_by_class == AcceptedByClass(0, 3.0, 3)
    assert found.short == 1  # class 2 has no image at all
    assert select(run, Settings(per_class=100)).short == 3


@pytest.mark.parametrize("made", [PLAIN, ALIKE])
def test_neither_time_nor_order_changes_a_byte(tmp_path: Path, made: list[Row]) -> None:
    one, other = write_run(tmp_path / "one", made), write_run(tmp_path / "other", made, backwards=True)
    settings = Settings(per_class=2, max_energy=3.5, duplicates=1.0)
    ledgers = []
    for run in (one, one, other):
        select(run, settings)
        ledgers.append(ledger_path(run).read_bytes())
    assert ledgers[0] == ledgers[1] == ledgers[2]
    select(one, Settings(per_class=1))
    assert ledger_path(one).read_bytes() != ledgers[0]


def test_shards_are_read_in_any_order(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ALIKE)
    shards, teacher = ShardSet.discover(run).shards, load_classifier(str(tmp_path / "run" / "teacher"))
    one, other = read_stored(shards), read_stored(shards[::-1])
    assert all(np.array_equal(getattr(one, key), getattr(other, key)) for key in vars(one))
    wanted = one.label < 2
    files = [tmp_path / "a", tmp_path / "b"]
    for file, given in zip(files, (shards, shards[::-1]), strict=True):
        write_features(file, given, one.index, wanted, teacher)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_features_are_the_teachers_of_the_wanted_samples(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ALIKE)
    shards, teacher = ShardSet.discover(run).shards, load_classifier(str(tmp_path / "run" / "teacher"))
    stored = read_stored(shards)
    features = write_features(tmp_path / "f", shards, stored.index, stored.label == 1, teacher)
    found = features.at(np.array([9, 1]))
    assert (tmp_path / "f").stat().st_size == 4 * found.shape[1] * 2  # four samples of class 1, float16
    net: Any = teacher.net
    pictures = teacher.prepare(torch.stack([image(10), image(7)]).float() / 255)
    pooled = net.forward_head(net.forward_features(pictures), pre_logits=True)
    wanted = torch.nn.functional.normalize(pooled, dim=1).numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_a_picture_is_kept_once_a_class(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ALIKE)
    assert reasons(run, duplicates=1.0) == {0: "duplicate", 5: "duplicate"}  # of two, the one with more energy
    assert {row["index"]: row["duplicate_of"] for row in rows(run) if row["duplicate_of"] is not None} == {0: 3, 5: 9}
    assert select(run, Settings(duplicates=1.0)).rejected["duplicate"] == 2
    assert reasons(run, duplicates=1.0, per_class=2) == {0: "duplicate", 5: "quota", 6: "quota", 9: "quota"}


def test_the_features_are_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, scratch, seen = write_run(tmp_path / "run", ALIKE), tmp_path / "scratch", []
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    @contextmanager
    def phase(name: str) -> Iterator[Progress]:
        yield lambda done, total, value: seen.append((name, done, total, len(list(scratch.rglob("features")))))

    select(run, Settings(duplicates=0.98), phase=phase)
    assert ("features, images", 3, 3, 1) in seen
    assert ("read, samples", 3, 3, 0) in seen
    assert list(scratch.iterdir()) == []
    spoil_images(run)
    with pytest.raises(DataError, match=r"000000\.tar is damaged: SHA-256"):
        select(run, Settings())
    monkeypatch.setattr(shard_set, "HASHED_BYTES", 0)  # as if it were too large to be hashed
    with pytest.raises(DataError, match=r"000000\.tar cannot be read \(sample 0 is no png"):
        select(run, Settings(duplicates=0.98))
    assert list(scratch.iterdir()) == []


def spoil_images(run: Path) -> None:
    for shard in ShardSet.discover(run).shards:
        with shard.tar.open("r+b") as file:
            for held in shard.entries():
                file.seek(held.image.offset)
                file.write(bytes(held.image.size))


def test_energies_need_neither_network_nor_image(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("prism_fast.selection.teacher.run_teacher", refuse)
    before = accepted(run, per_class=2, agree=True)
    spoil_images(run)
    monkeypatch.setattr(shard_set, "HASHED_BYTES", 0)
    assert accepted(run, per_class=2, agree=True) == before
    assert reasons(run, duplicates=0.9, max_energy=-1.0) == dict.fromkeys(range(9), "energy")  # nothing to compare


def test_another_teacher_is_refused(run: Path) -> None:
    config = run.parent / "teacher" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(DataError, match="is not the teacher that guided"):
        select(run, Settings(duplicates=0.9))


def test_only_a_finished_run_is_selected_from(run: Path, tmp_path: Path) -> None:
    (run / "shards" / "000001.json").unlink()
    with pytest.raises(InputError, match=r"is not finished: 1 of 3 shards are missing"):
        select(run, Settings())
    with pytest.raises(DataError, match="is not a run directory"):
        select(tmp_path, Settings())


def test_a_stray_shard_is_refused(run: Path) -> None:
    for ext in ("tar", "idx", "json"):
        (run / "shards" / f"000007.{ext}").write_bytes((run / "shards" / f"000000.{ext}").read_bytes())
    with pytest.raises(DataError, match=r"shard 000007 is not one of the plan's 3; run 'prism-fast repair"):
        select(run, Settings())


def test_what_the_teacher_saw_must_be_stored(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ALIKE)
    with pytest.raises(DataError, match="select without --agree"):
        select(run, Settings(agree=True))


def test_a_sample_without_an_energy_is_one_clear_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Row(0, 1.0)])
    tar, index = tar_bytes([replace(sample(0, Row(0, 1.0)), meta={"index": 0, "label": 0})], "png", 95)
    (run / "shards" / "000000.tar").write_bytes(tar)
    (run / "shards" / "000000.idx").write_text(index)
    hashes = {"sha256": sha256(tar).hexdigest(), "index_sha256": sha256(index.encode()).hexdigest()}
    edit(run / "shards" / "000000.json", size_bytes=len(tar), **hashes)
    with pytest.raises(DataError, match=r"000000\.tar: a sample's \.json lacks label or energy \(KeyError"):
        select(run, Settings())
