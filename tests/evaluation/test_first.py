"""A report reads the pictures that it shows and the energies, and holds no run in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard import Entry, ShardReader
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.writer import commit_shard, make_record, tar_bytes
from prism_fast.evaluation import first, gather
from prism_fast.evaluation.first import energies, first_of_each_class, first_pairs

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
    assert [(a.index, b.index) for a, b in first_pairs(before, after, 16)] == [(1, 1), (2, 2), (3, 3)]
    assert sorted(decoded) == [1, 1, 2, 2, 3, 3]
    assert [(a.index, b.index) for a, b in first_pairs(after, before, 2)] == [(1, 1), (2, 2)]
    later = write(tmp_path / "c", 6, rows=4, skip=tuple(range(18)))
    assert [(a.index, b.index) for a, b in first_pairs(before, later, 16)] == [(18, 18), (19, 19)]


def test_energies_are_read_without_an_image(tmp_path: Path, decoded: list[int]) -> None:
    shards = write(tmp_path, 10)
    assert torch.equal(energies(shards), torch.tensor([i / 7 for i in range(40)]))
    assert torch.equal(
        energies(shards, most=10), torch.tensor([i / 7 for k in (0, 4, 8) for i in range(4 * k, 4 * k + 4)])
    )
    assert decoded == []


def test_the_report_says_what_it_left_out(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gather.gather(finished)
    assert whole.notes == ()
    assert whole.energies is not None
    assert [s.n for s in whole.energies.sets] == [10]
    monkeypatch.setattr(gather, "energies", lambda shards: energies(shards, most=6))
    monkeypatch.setattr(gather, "MAX_CLASSES", 2)
    cut = gather.gather(finished)
    assert cut.notes == (
        "Energies are those of 6 of 10 images, whole shards at equal distances.",
        "Grids show the first 2 of 3 classes.",
    )


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
