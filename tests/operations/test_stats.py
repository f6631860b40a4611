from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import DataError
from prism_fast.operations.stats import ImagesByClass, stats
from tests.damage import edit


def metas(run: Path, shards: list[int]) -> list[dict[str, Any]]:
    """What the tars themselves say of their samples."""
    found = []
    for shard in shards:
        with tarfile.open(run / "shards" / f"{shard:06d}.tar") as tar:
            members = [m for m in tar.getmembers() if m.name.endswith(".json")]
            found += [json.loads(tar.extractfile(m).read()) for m in members]  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("shards", [[0, 1, 2], [1], [0, 2]])
def test_the_numbers_are_those_of_the_tars(run: Path, shards: list[int]) -> None:
    for shard in {0, 1, 2} - set(shards):
        (run / "shards" / f"{shard:06d}.json").unlink()
    samples, found = metas(run, shards), stats(run)
    assert (found.images, found.images_planned) == (len(samples), 10)
    assert (found.shards, found.shards_planned, found.quarantined) == (len(shards), 3, 0)
    assert found.size_bytes == sum((run / "shards" / f"{shard:06d}.tar").stat().st_size for shard in shards)
    counts = Counter(meta["label"] for meta in samples)
    by_class = [counts[label] for label in range(3)]
    assert found.classes == 3
    assert found.images_by_class == ImagesByClass(min(by_class), sum(by_class) / 3, max(by_class))
    for name, value in (("objective_before", found.objective_before_mean), ("energy_after", found.energy_after_mean)):
        assert value == pytest.approx(sum(meta[name] for meta in samples) / len(samples))
    seconds = sum(r.seconds for r in RunDirectory(run).records().values())
    assert found.images_per_s == pytest.approx(len(samples) / seconds)


def test_no_tar_is_needed(run: Path) -> None:
    before = stats(run)
    for tar in (run / "shards").glob("*.tar"):
        tar.unlink()
    assert stats(run) == before


def test_quarantined_images_belong_to_no_class(run: Path) -> None:
    labels = [row.label for row in RunDirectory(run).plan().rows(0, 10)]
    edit(run / "shards" / "000001.json", quarantined=[4, 5], rows=2)
    found = stats(run)
    counts = Counter(label for index, label in enumerate(labels) if index not in (4, 5))
    assert (found.images, found.quarantined) == (8, 2)
    assert (found.images_by_class.min, found.images_by_class.max) == (min(counts.values()), max(counts.values()))


def test_strays_and_foreign_records_do_not_count(run: Path) -> None:
    before = stats(run)
    (run / "shards" / "000009.json").write_text((run / "shards" / "000000.json").read_text())
    edit(run / "shards" / "000009.json", shard=9, first_index=36)
    assert stats(run) == before
    edit(run / "shards" / "000002.json", run_hash="f" * 64)
    assert (stats(run).shards, stats(run).images) == (2, 8)


def test_a_run_that_has_only_begun(run: Path) -> None:
    for record in (run / "shards").glob("*.json"):
        record.unlink()
    found = stats(run)
    assert (found.images, found.shards, found.size_bytes, found.images_by_class.max) == (0, 0, 0, 0)
    assert (found.objective_before_mean, found.energy_after_mean, found.images_per_s) == (None, None, None)


@pytest.mark.parametrize("text", [None, "", "{"])
def test_a_plan_that_is_none_is_refused(run: Path, text: str | None) -> None:
    (run / "plan.parquet").unlink()
    if text is not None:
        (run / "plan.parquet").write_text(text)
    with pytest.raises(DataError, match=r"plan\.parquet is not a plan of 10 images; delete it"):
        stats(run)


def test_a_plan_of_another_length_is_refused(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["synthesis"]["images"] = 11
    edit(run / "run.json", config=facts["config"])
    with pytest.raises(DataError, match=r"plan\.parquet is not a plan of 11 images"):
        stats(run)


@pytest.mark.parametrize("place", [0, 5, 9])
def test_classes_that_do_not_take_turns_are_refused(run: Path, place: int) -> None:
    table = pq.read_table(run / "plan.parquet")
    labels = table.column("label").to_pylist()
    labels[place] = (labels[place] + 1) % 3
    column = pa.array(labels, table.schema.field("label").type)
    pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", column), run / "plan.parquet")
    with pytest.raises(DataError, match="is not a plan of 10 images"):
        stats(run)
