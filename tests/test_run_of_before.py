"""A run that was begun before the rooms were moved (by commit 98bbd55) goes on, and every command knows it.

``tests/fixtures/run-of-98bbd55`` is a run of ten images of the bundled models, killed when it began its second shard.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import prism_fast
from prism_fast.config import RunConfig
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import InputError
from prism_fast.operations.export import export
from prism_fast.operations.extend import extend
from prism_fast.operations.stats import stats
from prism_fast.operations.watch import Watcher
from tests.cli.conftest import restored

FIXTURE = Path(__file__).parent / "fixtures" / "run-of-98bbd55"
#: What its own commit computed.
RUN_HASH = "6ed9dac8c659e789d247f95c58acb833e1c4c6e3e025a33ac35ed59ed2ecb033"
FIRST_TAR = "dab1664411185b2b27be9e992123f972d6be2adf85bcb8a9ac4c59bc02559487"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "run"))


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    with restored():
        yield


def test_its_configuration_has_the_hash_that_it_had(run: Path) -> None:
    directory = RunDirectory(run)
    assert directory.layout().run_hash == directory.config().run_hash() == RUN_HASH


def test_its_plan_is_the_plan_that_is_made_now(run: Path) -> None:
    before = (run / "plan.parquet").read_bytes()
    (run / "plan.parquet").unlink()
    RunDirectory(run).claim(RunDirectory(run).config())
    assert (run / "plan.parquet").read_bytes() == before


def test_what_it_holds_is_read(run: Path) -> None:
    assert (stats(run).images, stats(run).images_planned) == (4, 10)
    assert (Watcher(run).frame(0.0).shards, Watcher(run).frame(0.0).shards_planned) == (1, 3)
    samples = list(prism_fast.ShardSet.discover(run).samples())
    assert [s.index for s in samples] == [0, 1, 2, 3]
    assert all(s.image.shape == (3, 64, 64) and len(s.logits) == 16 for s in samples)
    assert len(prism_fast.verify(run).problems) == 2  # the two shards that are missing


def finished(run: Path) -> RunConfig:
    config = RunDirectory(run).config()
    summary = prism_fast.synthesize(config, run)
    assert (summary.images, summary.made_now) == (config.synthesis.images, config.synthesis.images - 4)
    return config


def test_it_is_finished_verified_extended_and_distilled(run: Path, tmp_path: Path) -> None:
    config = finished(run)
    assert prism_fast.verify(run).problems == ()
    first = (run / "shards" / "000000.tar").read_bytes()
    assert hashlib.sha256(first).hexdigest() == FIRST_TAR

    longer = extend(run, 12)
    assert (longer.images_before, longer.images, longer.retired) == (10, 12, 2)
    assert prism_fast.synthesize(RunDirectory(run).config(), run).made_now == 4
    assert prism_fast.verify(run).problems == ()
    assert (run / "shards" / "000000.tar").read_bytes() == first

    recipe = ["student=test_resnet", "image_size=32", "steps=3", "batch_size=4", "warmup_steps=1", "loader=torch"]
    student = prism_fast.load_config("minis-emoji", [f"distill.{value}" for value in recipe])
    assert prism_fast.distill(student, run, tmp_path / "student")[0].steps == 3
    assert export(run, tmp_path / "folders", "imagefolder") == 12
    assert "<html" in prism_fast.report(run).read_text()
    assert config.run_hash() == RUN_HASH


def test_other_weights_are_still_refused(run: Path) -> None:
    record = run / "shards" / "000000.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"models": {"diffusion": "x", "teacher": "y"}}))
    with pytest.raises(InputError, match="was begun with other weights"):
        prism_fast.synthesize(RunDirectory(run).config(), run)
