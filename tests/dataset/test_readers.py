"""The libraries that people read shards with, really reading them. DALI's test is in test_shards."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prism_fast.dataset.sample import Sample
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.operations.export import export


@pytest.fixture(scope="module")
def wanted(finished: Path) -> list[Sample]:
    return list(ShardSet.discover(finished).samples())


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No hub, no cache outside of the test, and the libraries' own warnings are theirs."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def assert_same(picture: Any, label: int, sample: Sample) -> None:
    assert np.array_equal(np.array(picture), sample.image.permute(1, 2, 0).numpy())
    assert label == sample.label


def test_webdataset(finished: Path, wanted: list[Sample]) -> None:
    wds = pytest.importorskip("webdataset")
    urls = str(finished / "shards" / "{000000..000002}.tar")
    found = list(wds.WebDataset(urls, shardshuffle=False).decode("pil"))
    for item, sample in zip(found, wanted, strict=True):
        assert_same(item["png"], item["cls"], sample)
        assert item["json"] == sample.meta
        assert np.array_equal(np.frombuffer(item["logits"], "<f2"), sample.logits.half().numpy())
        assert np.frombuffer(item["label"], "<i4").tolist() == [sample.label]


def test_timm(finished: Path, wanted: list[Sample]) -> None:
    pytest.importorskip("webdataset")
    from timm.data import create_dataset

    found = create_dataset("wds/prism", root=str(finished), split="shards/{000000..000002}.tar|10", batch_size=2)
    assert len(found) == 10
    for (picture, label), sample in zip(found, wanted, strict=True):
        assert_same(picture, label, sample)


def test_datasets_reads_the_shards(finished: Path, wanted: list[Sample], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(
        "webdataset", data_files=str(finished / "shards" / "*.tar"), split="train", cache_dir=str(tmp_path / "cache")
    )
    for item, sample in zip(found, wanted, strict=True):
        assert_same(item["png"], item["cls"], sample)
        assert item["json"]["prompt"] == sample.meta["prompt"]
        assert np.array_equal(np.frombuffer(item["logits"], "<f2"), sample.logits.half().numpy())


def test_datasets_reads_a_run_by_its_card(finished: Path, wanted: list[Sample], tmp_path: Path) -> None:
    """Beside the shards lie records and Parquet files, which are not samples."""
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(finished), split="train", cache_dir=str(tmp_path / "cache"))
    assert [item["cls"] for item in found] == [sample.label for sample in wanted]


def test_datasets_reads_an_exported_run(finished: Path, wanted: list[Sample], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    export(finished, tmp_path / "out", "parquet")
    found = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.features["label"].names == ["cat", "dog", "red"]
    for item, sample in zip(found, wanted, strict=True):
        assert_same(item["image"], item["label"], sample)
        assert np.array_equal(np.array(item["logits"], np.float16), sample.logits.half().numpy())
