"""A report reads the pictures that it shows and the energies, and holds no run in memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard import Entry, Shard, ShardReader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.writer import commit_shard, make_record, tar_bytes
from prism_fast.evaluation import first, gather
from prism_fast.evaluation.first import energies, first_of_each_class, first_pairs, shown_classes
from prism_fast.evaluation.report import render_html

CLASSES = 3


def write(run: Path, shards: int, rows: int = 4, skip: tuple[int, ...] = ()) -> ShardSet:
    """Grey pictures whose level and energy are their index; those of ``skip`` were quarantined."""
    for number in range(shards):
        planned = range(number * rows, (number + 1) * rows)
        samples = [
            Sample(
                i, torch.full((3, 8, 8), i % 256, dtype=torch.uint8), i % CLASSES, torch.zeros(CLASSES),
                {"energy_after": i / 7, "class_name": f"class {i % CLASSES}", "prompt": f"prompt {i}"},
            )
            for i in planned
            if i not in skip
        ]  # fmt: skip
        tar, index = tar_bytes(samples, "png", 75)
        record = make_record(
            number, samples, tar, index, run_hash="toy", models={}, classes=CLASSES, image_ext="png",
            first_index=planned.start, planned=rows,
        )  # fmt: skip
        commit_shard(run / "shards", record, tar, index)
    return ShardSet.discover(run)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices of the images that are decoded."""
    seen: list[int] = []
    decode = ShardReader.image

    def counting(self: ShardReader, entry: Entry) -> torch.Tensor:
        seen.append(entry.index)
        return decode(self, entry)

    monkeypatch.setattr(ShardReader, "image", counting)
    return seen


def test_reading_stops_when_every_class_is_filled(tmp_path: Path, decoded: list[int]) -> None:
    shards = write(tmp_path, 10)
    found = list(first_of_each_class(shards, 2))
    assert [s.index for s in found] == decoded == [0, 1, 2, 3, 4, 5]
    assert [int(s.image[0, 0, 0]) for s in found] == [0, 1, 2, 3, 4, 5]


def test_a_quarantined_sample_is_replaced_by_the_next(tmp_path: Path, decoded: list[int]) -> None:
    shards = write(tmp_path, 10, skip=(1, 3))
    assert [s.index for s in first_of_each_class(shards, 2)] == [0, 2, 4, 5, 6, 7]
    assert [s.index for s in first_of_each_class(shards, 1, classes=2)] == [0, 4]


def test_a_class_that_is_not_there_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first, "_AT_LEAST", 8)
    shards = write(tmp_path, 10, skip=tuple(range(2, 40, 3)))
    opened: list[str] = []

    def label(self: ShardReader, entry: Entry) -> int:
        opened.append(self._shard.name)
        return entry.index % CLASSES

    monkeypatch.setattr(ShardReader, "label", label)
    assert [s.index for s in first_of_each_class(shards, 1)] == [0, 1]
    assert len(set(opened)) < 10


def test_pairs_are_of_one_index_whatever_the_shards_are(tmp_path: Path, decoded: list[int]) -> None:
    before, after = write(tmp_path / "a", 4, rows=5, skip=(0,)), write(tmp_path / "b", 7, rows=3)
    assert [(a.sample.index, b.sample.index) for a, b in first_pairs(before, after, 16)] == [(1, 1), (2, 2), (3, 3)]
    assert sorted(decoded) == [1, 1, 2, 2, 3, 3]
    assert [(a.sample.index, b.sample.index) for a, b in first_pairs(after, before, 2)] == [(1, 1), (2, 2)]
    later = write(tmp_path / "c", 6, rows=4, skip=tuple(range(18)))
    assert [(a.sample.index, b.sample.index) for a, b in first_pairs(before, later, 16)] == [(18, 18), (19, 19)]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines of indices that became objects."""
    seen: list[str] = []
    parse = Shard._entry

    def counting(self: Shard, line: str) -> Entry:
        seen.append(line)
        return parse(self, line)

    monkeypatch.setattr(Shard, "_entry", counting)
    return seen


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices of the samples whose JSON is read."""
    seen: list[int] = []
    meta = ShardReader.meta

    def counting(self: ShardReader, entry: Entry) -> dict[str, Any]:
        seen.append(entry.index)
        return meta(self, entry)

    monkeypatch.setattr(ShardReader, "meta", counting)
    return seen


def test_energies_of_a_small_run_are_all_of_them(tmp_path: Path, decoded: list[int]) -> None:
    shards = write(tmp_path, 10)
    assert torch.equal(energies(shards), torch.tensor([i / 7 for i in range(40)]))
    assert torch.equal(energies(shards, most=40), energies(shards))
    assert decoded == []


def test_of_a_large_run_no_more_than_the_sample_is_read(
    tmp_path: Path, decoded: list[int], described: list[int], parsed: list[str]
) -> None:
    """Neither the images nor the JSON nor the lines of the others: whatever the run's length, memory has a bound."""
    shards = write(tmp_path, 100, rows=20)
    assert len(parsed) == 2 * 100  # the first and the last line of each index
    parsed.clear()
    found = energies(shards, most=250)
    assert len(found) == len(described) == len(set(described)) == len(parsed) == 250
    assert torch.equal(found, torch.tensor([i / 7 for i in described]))
    assert decoded == []


def test_every_shard_and_class_has_its_share_of_the_sample(tmp_path: Path, described: list[int]) -> None:
    shards = write(tmp_path, 40, rows=15, skip=tuple(range(300)))  # 20 shards of quarantined samples, 20 whole ones
    first = energies(shards, most=90)
    by_shard, by_class = Counter(i // 15 for i in described), Counter(i % CLASSES for i in described)
    assert set(by_shard) == set(range(20, 40))
    assert set(by_shard.values()) == {4, 5}
    assert min(by_class.values()) > 15
    assert len({i % 15 for i in described}) == 15  # any place in a shard
    assert torch.equal(energies(shards, most=90), first)


def test_a_sample_leaves_out_what_was_rejected(tmp_path: Path, described: list[int]) -> None:
    whole = write(tmp_path, 2, rows=20)
    out = frozenset(range(0, 40, 2))
    left = replace(
        whole,
        shards=tuple(s.without(out & set(range(20 * i, 20 * i + 20))) for i, s in enumerate(whole.shards)),
        rows=20,
    )
    assert len(energies(left, most=10)) == 10
    assert not out & set(described)


def test_large_pictures_are_of_fewer_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write(tmp_path, 3)
    assert shown_classes(shards, 8) == 3
    each = sum(shard.record.size_bytes for shard in shards.shards) // shards.rows
    monkeypatch.setattr(first, "MAX_PICTURE_BYTES", 2 * 8 * each)
    assert shown_classes(shards, 8) == 2
    monkeypatch.setattr(first, "MAX_PICTURE_BYTES", 1)
    assert shown_classes(shards, 8) == 1


def test_the_report_says_what_it_left_out(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gather.gather(finished)
    assert whole.notes == ()
    assert whole.energies is not None
    assert [s.n for s in whole.energies.sets] == [10]
    monkeypatch.setattr(gather, "energies", lambda shards: energies(shards, most=6))
    monkeypatch.setattr(first, "MAX_CLASSES", 2)
    cut = gather.gather(finished)
    assert cut.energies is not None
    assert [s.n for s in cut.energies.sets] == [6]
    assert len(cut.grids) == 2
    assert cut.notes == (
        "Energies are those of 6 of 10 images, drawn at random in each shard.",
        "Grids show the first 2 of 3 classes.",
    )
    assert "those of 6 of 10 images" in render_html(cut)


def test_a_page_shows_the_stored_bytes(finished: Path) -> None:
    shard = ShardSet.discover(finished).shards[0]
    with shard.open() as reader:
        stored = {reader.image_bytes(entry) for entry in shard.entries()}
    shown = {picture.data for grid in gather.gather(finished).grids for picture in grid.pictures}
    assert stored <= shown


def test_a_report_shows_what_the_whole_run_in_memory_gave(finished: Path, run: Path, tmp_path: Path) -> None:
    """Grids, pairs and energies of a small run as they were when every sample was held."""
    (tmp_path / "demo").mkdir()
    for name in ("guided", "unguided"):
        shutil.copytree(finished, tmp_path / "demo" / name)
    found, samples = gather.gather(tmp_path / "demo"), list(ShardSet.discover(finished).samples())
    by_class: dict[str, list[str]] = {}
    for sample in samples:
        by_class.setdefault(sample.meta["class_name"], []).append(sample.meta["prompt"])
    assert {g.class_name: [p.caption for p in g.pictures] for g in found.grids} == by_class
    assert [(p.caption, p.energy_after) for p in found.pairs] == [
        (s.meta["prompt"], s.meta["energy_after"]) for s in samples[:3]
    ]
    assert found.energies is not None
    assert found.energies.sets[0].mean == pytest.approx(sum(s.meta["energy_after"] for s in samples) / 10)
    assert json.loads(json.dumps(found.summary)) == {"images": 10}


def test_a_page_about_a_run_alone_loads_no_network_library() -> None:
    """They are a quarter of what a report's process would hold."""
    program = "import sys, prism_fast.evaluation.gather; print(sorted({'timm', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
