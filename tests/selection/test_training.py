"""What was rejected is not trained on, whatever reads the shards, and a selection that no longer fits is refused."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torchvision.datasets import ImageFolder

from prism_fast.data import Batch, open_loader
from prism_fast.dataset.ledger import ledger_path
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation import Task, train_students
from prism_fast.errors import DataError, InputError
from prism_fast.operations.export import export
from prism_fast.operations.extend import extend
from prism_fast.operations.verify import verify
from prism_fast.selection.select import select
from prism_fast.selection.settings import Settings
from tests.data.toy import MEAN, STD, config
from tests.selection.crafted import Row, write_run, write_shard

BOTH = pytest.mark.parametrize("name", ["dali", "torch"])
#: The second shard is rejected as a whole, of the others a part; the last one is not full.
ROWS = [Row(i % 3, 5.0 if i in (1, 4, 5, 6, 7, 8, 13) else 0.1 * i) for i in range(14)]
KEPT = [0, 2, 3, 9, 10, 11, 12]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "made", ROWS)
    select(run, Settings(max_energy=4.0))
    return run


def indices(batches: list[Batch]) -> list[int]:
    return [int(value) for batch in batches for value in batch.logits[:, 0]]


@BOTH
def test_every_accepted_sample_comes_once_an_epoch_and_no_other(
    run: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = {path: path.read_bytes() for path in (run / "shards").iterdir()}
    shards = ShardSet.discover(run, selected=True)
    assert (shards.rows, [shard.record.shard for shard in shards.shards]) == (7, [0, 2, 3])
    feed = open_loader(shards, config(loader=name), "cpu", MEAN, STD)
    batches = list(islice(feed, 7))  # 42 samples: six epochs of seven, batches of six across their ends
    feed.close()
    found = indices(batches)
    assert all(sorted(found[start : start + 7]) == KEPT for start in range(0, 42, 7))
    labels = [int(label) for batch in batches for label in batch.labels]
    assert labels == [index % 3 for index in found]
    assert list(scratch.iterdir()) == []
    assert {path: path.read_bytes() for path in (run / "shards").iterdir()} == before


@BOTH
def test_the_stream_of_a_selection_can_be_resumed(run: Path, name: str) -> None:
    shards = ShardSet.discover(run, selected=True)
    whole = open_loader(shards, config(loader=name), "cpu", MEAN, STD)
    wanted = list(islice(whole, 6))
    whole.close()
    first = open_loader(shards, config(loader=name), "cpu", MEAN, STD)
    list(islice(first, 2))
    state = first.state_dict()
    first.close()
    second = open_loader(shards, config(loader=name), "cpu", MEAN, STD)
    second.load_state_dict(state)
    found = list(islice(second, 4))
    second.close()
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, wanted[2:], strict=True))
    assert indices(found) == indices(wanted[2:])


def test_the_digest_names_what_is_left(run: Path) -> None:
    whole, part = ShardSet.discover(run), ShardSet.discover(run, selected=True)
    assert whole.rows == 14
    assert whole.digest() != part.digest() == ShardSet.discover(run, selected=True).digest()
    select(run, Settings(max_energy=3.0))  # other settings, the same samples
    assert ShardSet.discover(run, selected=True).digest() == part.digest()
    select(run, Settings())
    assert ShardSet.discover(run, selected=True).digest() == whole.digest()


def test_a_checkpoint_of_another_selection_is_refused(run: Path, tmp_path: Path) -> None:
    settings = config(loader="torch", steps=2, selection=True)
    train_students(Task(settings, ShardSet.discover(run, selected=True), tmp_path / "out", MEAN, STD))
    select(run, Settings(per_class=2))
    with pytest.raises(InputError, match="written with shards"):
        train_students(Task(settings, ShardSet.discover(run, selected=True), tmp_path / "out", MEAN, STD))


def test_without_a_selection_there_is_none_to_train_on(run: Path) -> None:
    ledger_path(run).unlink()
    with pytest.raises(DataError, match="holds no selection; make one with 'prism-fast select"):
        ShardSet.discover(run, selected=True)
    assert ShardSet.discover(run).rows == 14


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_file_that_is_no_selection(run: Path, content: bytes) -> None:
    ledger_path(run).write_bytes(content)
    with pytest.raises(DataError, match="is not a selection; select again"):
        ShardSet.discover(run, selected=True)
    pq.write_table(pq.ParquetFile(run / "plan.parquet").read(), ledger_path(run))
    with pytest.raises(DataError, match="is not a selection; select again"):
        ShardSet.discover(run, selected=True)


def test_a_selection_whose_rows_were_changed_is_refused(run: Path) -> None:
    """Parquet has no hash of what it holds: a flipped bit accepted or rejected other samples."""
    table = pq.ParquetFile(ledger_path(run)).read()
    for name in ("accepted", "index", "shard", "energy"):
        values = table.column(name).to_pylist()
        values[0] = not values[0] if name == "accepted" else values[0] + 1
        field = table.schema.field(name)
        changed = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
        pq.write_table(changed, ledger_path(run))
        with pytest.raises(DataError, match="is not a selection; select again"):
            ShardSet.discover(run, selected=True)
        assert any("is not a selection" in problem for problem in verify(run).problems)
    pq.write_table(table, ledger_path(run))
    assert ShardSet.discover(run, selected=True).rows


def test_a_selection_of_before_has_no_hash_of_its_rows(run: Path) -> None:
    table = pq.ParquetFile(ledger_path(run)).read()
    facts = json.loads(table.schema.metadata[b"prism-fast"])
    del facts["rows"]
    pq.write_table(table.replace_schema_metadata({b"prism-fast": json.dumps(facts).encode()}), ledger_path(run))
    assert ShardSet.discover(run, selected=True).rows


def test_an_empty_selection_trains_nobody(run: Path) -> None:
    select(run, Settings(max_energy=-1.0))
    with pytest.raises(DataError, match="rejects every sample"):
        ShardSet.discover(run, selected=True)


STALE = r"selection\.parquet was made before .* changed; select again with 'prism-fast select"


def test_a_selection_of_a_run_that_was_extended_is_refused(run: Path) -> None:
    extend(run, 16)
    with pytest.raises(DataError, match=STALE):
        ShardSet.discover(run, selected=True)
    with pytest.raises(DataError, match=STALE):
        export(run, run.parent / "out", "imagefolder", selected=True)


def test_a_selection_of_a_run_that_was_repaired_fits_the_same_bytes_only(run: Path) -> None:
    directory = RunDirectory(run)
    teacher = directory.records()[0].models["teacher"]
    before = ShardSet.discover(run, selected=True).digest()
    (run / "shards" / "000001.json").unlink()
    with pytest.raises(DataError, match=STALE):
        ShardSet.discover(run, selected=True)
    write_shard(directory, 1, ROWS, teacher)
    assert ShardSet.discover(run, selected=True).digest() == before
    write_shard(directory, 1, [Row(i % 3, 1.0) for i in range(14)], teacher)
    with pytest.raises(DataError, match=STALE):
        ShardSet.discover(run, selected=True)
    select(run, Settings())
    assert ShardSet.discover(run, selected=True).rows == 14


def test_export_leaves_out_what_is_rejected(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "folders", "imagefolder", selected=True) == 7
    found = ImageFolder(str(tmp_path / "folders"))
    assert sorted(int(Path(path).stem) for path, _ in found.samples) == KEPT
    assert export(run, tmp_path / "parquet", "parquet", selected=True) == 7
    files = sorted((tmp_path / "parquet" / "data").iterdir())
    rows = [row for file in files for row in pq.ParquetFile(file).read(columns=["index", "label"]).to_pylist()]
    assert [row["index"] for row in rows] == KEPT
    assert Counter(row["label"] for row in rows) == Counter(index % 3 for index in KEPT)
    assert "7 synthetic images" in (tmp_path / "parquet" / "README.md").read_text()
    assert export(run, tmp_path / "all", "imagefolder") == 14
