"""Loaders ask for the logits of any sample's any view; few files are open, little is held."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from prism_fast.config.views import ViewsConfig
from prism_fast.dataset import view_labels as module
from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard import Shard
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.view_files import write_views
from prism_fast.dataset.view_labels import labelling_of, open_view_labels
from prism_fast.dataset.writer import commit_shard, make_record, tar_bytes
from prism_fast.errors import DataError, InputError

COUNT, CLASSES = 3, 300


def write_shard(folder: Path, number: int, indices: range, classes: int = CLASSES) -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    samples = [Sample(i, image, 0, torch.zeros(classes), {"index": i}) for i in indices]
    tar, index = tar_bytes(samples, "png", 95)
    record = make_record(
        number,
        samples,
        tar,
        index,
        run_hash="r" * 64,
        models={"teacher": "t"},
        classes=classes,
        image_ext="png",
        first_index=indices.start,
        planned=len(indices),
    )
    commit_shard(folder / "shards", record, tar, index)


def label_all(run: Path, count: int = COUNT, top_k: int = 8) -> dict[int, torch.Tensor]:
    """Random logits (n, count, classes) as the views of every shard."""
    given = {}
    for shard in ShardSet.discover(run).shards:
        record, index = shard.record, np.array([entry.index for entry in shard.entries()])
        labelling = labelling_of(ViewsConfig(top_k=top_k, image_size=16), 5, record.classes, "t")
        generator = torch.Generator().manual_seed(record.shard)
        logits = torch.randn(len(index), count, record.classes, generator=generator) * 3
        write_views(run, record, labelling, index, labelling.codec.encode(logits))
        given[record.shard] = logits
    return given


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Five shards of four samples."""
    for number in range(5):
        write_shard(tmp_path, number, range(4 * number, 4 * number + 4))
    return tmp_path


def asked(labels: module.ViewLabels, shard: Shard, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows, views = rng.integers(4, size=9), rng.integers(COUNT, size=9)
    return rows, views, labels.logits(shard, rows + shard.record.first_index, views)


def test_any_views_of_any_samples_are_given(run: Path) -> None:
    given, shards = label_all(run), ShardSet.discover(run)
    labels = open_view_labels(shards)
    assert (labels.count, labels.rule.seed, labels.image_size) == (COUNT, 5, 16)
    for seed, shard in enumerate(shards.shards):
        rows, views, found = asked(labels, shard, seed)
        wanted = given[shard.record.shard][rows, views]
        high, places = wanted.topk(8)
        assert found.shape == (9, CLASSES)
        assert found.dtype == np.float32
        assert torch.equal(torch.from_numpy(found).gather(1, places), high.half().float())
    assert labels.logits(shards.shards[0], np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0, CLASSES)


def test_few_files_are_open_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, shards = label_all(run, top_k=1), ShardSet.discover(run)
    labels = open_view_labels(shards)
    monkeypatch.setattr(module, "OPEN_FILES", 2)
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(20):
        shard = shards.shards[seed % 5]
        rows, views, found = asked(labels, shard, seed)
        assert (found.argmax(1) == given[shard.record.shard][rows, views].argmax(1).numpy()).all()
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    del labels
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_may_ask_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, shards = label_all(run, top_k=1), ShardSet.discover(run)
    labels = open_view_labels(shards)
    monkeypatch.setattr(module, "OPEN_FILES", 1)

    def right(seed: int) -> bool:
        shard = shards.shards[seed % 5]
        rows, views, found = asked(labels, shard, seed)
        return bool((found.argmax(1) == given[shard.record.shard][rows, views].argmax(1).numpy()).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, range(200)))


def test_the_views_that_every_file_has_are_counted(run: Path) -> None:
    label_all(run, count=3)
    shard = ShardSet.discover(run).shards[2]
    labelling = labelling_of(ViewsConfig(top_k=8, image_size=16), 5, CLASSES, "t")
    index = np.array([entry.index for entry in shard.entries()])
    write_views(run, shard.record, labelling, index, labelling.codec.encode(torch.zeros(4, 2, CLASSES)))
    labels = open_view_labels(ShardSet.discover(run))
    assert labels.count == 2
    with pytest.raises(InputError, match="views 0 to 2 are asked for, labelled are 0 to 1"):
        labels.logits(shard, np.array([8, 9]), np.array([0, 2]))
    with pytest.raises(DataError, match="holds no labels of some of these samples"):
        labels.logits(shard, np.array([3]), np.array([0]))


def test_what_says_nothing_of_views_says_what_to_do(run: Path) -> None:
    with pytest.raises(DataError, match=r"holds no labels of views; make them with 'prism-fast views .* --count V'"):
        open_view_labels(ShardSet.discover(run))


def test_files_of_several_rules_are_refused(run: Path) -> None:
    label_all(run)
    shard = ShardSet.discover(run).shards[2]
    other = labelling_of(ViewsConfig(top_k=8, image_size=17), 5, CLASSES, "t")
    index = np.array([entry.index for entry in shard.entries()])
    write_views(run, shard.record, other, index, other.codec.encode(torch.zeros(4, COUNT, CLASSES)))
    with pytest.raises(DataError, match="mixes views of several rules"):
        open_view_labels(ShardSet.discover(run))


def test_labels_of_another_teacher_are_refused(run: Path) -> None:
    label_all(run)
    shard = ShardSet.discover(run).shards[0]
    other = labelling_of(ViewsConfig(top_k=8, image_size=16), 5, CLASSES, "another")
    write_views(run, shard.record, other, np.arange(4), other.codec.encode(torch.zeros(4, COUNT, CLASSES)))
    with pytest.raises(DataError, match=r"000000\.views was labelled by another teacher than the run's"):
        open_view_labels(ShardSet.discover(run))


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label_all(run)
    monkeypatch.setattr(module, "OPEN_FILES", 1)
    shards = ShardSet.discover(run)
    labels = open_view_labels(shards)
    for seed, shard in enumerate(shards.shards):
        asked(labels, shard, seed)
    label_all(run, count=COUNT + 1)
    with pytest.raises(DataError, match="was replaced while it was read"):
        asked(labels, shards.shards[0], 0)


def test_damage_is_found_before_training_or_when_it_is_read(run: Path) -> None:
    label_all(run)
    path = run / "views" / "000001.views"
    data = bytearray(path.read_bytes())
    data[-40:] = b"\xff" * 40
    path.write_bytes(data)
    shards = ShardSet.discover(run)
    with pytest.raises(DataError, match=r"000001\.views is damaged: its labels have another hash"):
        open_view_labels(shards)
    labels = open_view_labels(shards, check=False)
    with pytest.raises(DataError, match=r"000001\.views is damaged: index"):
        labels.logits(shards.shards[1], np.array([7]), np.array([COUNT - 1]))


_MILLION = """
import resource, sys
from pathlib import Path
import numpy as np
from prism_fast.config.views import ViewsConfig
from prism_fast.dataset.record import Record
from prism_fast.dataset.shard import Shard
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.view_files import write_views
from prism_fast.dataset.view_labels import labelling_of, open_view_labels

run, rows, files = Path(sys.argv[1]), 10_000, 100
labelling = labelling_of(ViewsConfig(image_size=16), 0, 10, "t")
shards = []
for number in range(files):
    record = Record(shard=number, rows=rows, sha256=str(number), size_bytes=0, run_hash="r", models={"teacher": "t"},
        classes=10, image_ext="png", first_index=number * rows, planned=rows, quarantined=(),
        objective_before_mean=None, energy_after_mean=None, seconds=0.0)
    index = number * rows + np.arange(rows)
    records = np.zeros((rows, 1), labelling.codec.dtype)
    records["logits"] = (index % 10)[:, None, None] == np.arange(10)
    write_views(run, record, labelling, index, records)
    shards.append(Shard(run / "shards", record))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
labels = open_view_labels(ShardSet(tuple(shards), files * rows, 10, "png"), check=False)
for shard in shards:
    some = np.arange(0, rows, 7)
    found = labels.logits(shard, shard.record.first_index + some, 0 * some)
    assert (found.argmax(1) == some % 10).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_million_samples_take_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MILLION, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) < 40_000  # KiB
