"""Faults that the old structure caused, each reproduced once: none of these tests passed before the rooms were moved.

What the engine store takes for abandoned is in tests/engines/test_store.py.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from prism_kernels import KernelBackendError, KernelInputError

from benchmarks.stub import Stub, stub_config
from prism_fast.config import assign, load_config
from prism_fast.errors import InputError, PrismError
from prism_fast.experiments.demo import run_demo, train_students
from prism_fast.experiments.seeds import student_of
from prism_fast.models.classifier import load_classifier
from prism_fast.workers.launch import Job
from prism_fast.workers.launch.ray import Slot
from prism_fast.workers.rank import Rank
from prism_fast.workers.synthesize import synthesize
from tests.cli.conftest import Command
from tests.damage import edit
from tests.experiments.test_demo import Recorder
from tests.tiny import write_config

INPUT = 2


@pytest.mark.slow
def test_a_batch_size_tuned_in_a_store_is_found_in_that_store(prism: Command, tmp_path: Path) -> None:
    """The configuration read the user's own store only: "was not tuned"."""
    config = write_config(tmp_path, sampling={"steps": 2, "height": 16, "width": 16})
    store = ("--store", tmp_path / "store")
    assert prism("tune", config, *store, "--largest", 1).code == 0
    auto = ("--set", "sampling.batch_size=auto", "--images", 2)
    assert prism("synthesize", config, "--out", tmp_path / "run", *store, *auto).code == 0
    answer = prism("synthesize", config, "--out", tmp_path / "other", "--store", tmp_path / "empty", *auto)
    assert (answer.code, "was not tuned" in answer.error()) == (INPUT, True)


@pytest.mark.parametrize("command", ["distill", "export", "report"])
def test_a_stray_shard_is_not_read(prism: Command, tiny: Path, run: Path, tmp_path: Path, command: str) -> None:
    """Training took 14 rows of a run of 10."""
    for extension in ("tar", "idx", "json"):
        shutil.copy(run / "shards" / f"000000.{extension}", run / "shards" / f"000007.{extension}")
    known: dict[str, list[object]] = {
        "distill": [tiny, "--run", run, "--out", tmp_path / "student"],
        "export": [run, "--out", tmp_path / "out", "--format", "imagefolder"],
        "report": [run],
    }
    arguments = known[command]
    answer = prism(command, *arguments)
    assert answer.code == INPUT
    assert "shard 000007 is not one of the plan's 3; run 'prism-fast repair" in answer.error()
    assert prism("repair", run).code == 0
    assert prism(command, *arguments).code == 0


def test_a_shard_of_another_run_is_not_read(prism: Command, tiny: Path, run: Path, tmp_path: Path) -> None:
    """Its sibling: a record in the plan's place that this run did not write."""
    record = run / "shards" / "000001.json"
    edit(record, run_hash="another")
    answer = prism("distill", tiny, "--run", run, "--out", tmp_path / "student")
    assert (answer.code, "shard 000001 belongs to run another" in answer.error()) == (INPUT, True)


def test_demo_and_seeds_take_a_live_teacher(tmp_path: Path) -> None:
    """Only ``distill`` gave the trainer one: ``distill.teacher=live`` was an error elsewhere."""
    recipe = {"student": "test_resnet", "image_size": 32, "steps": 2, "batch_size": 4, "warmup_steps": 1}
    path = write_config(tmp_path, distill={**recipe, "loader": "torch", "teacher": "live"})
    config, out = load_config(path), tmp_path / "demo"
    synthesize(config, out / "guided")
    students = train_students(config, out, ("guided",), Recorder())
    assert students["guided"].config.mean == load_classifier(config.models.teacher).config.mean
    assert student_of(config, out, "guided", 7, Recorder()) == out / "seeds" / "guided-7" / "student"


def test_the_teacher_is_no_judge_of_its_own_images(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    same = assign(config, {"models.features": config.models.teacher})
    with pytest.raises(InputError, match="the teacher that guides; precision and recall need a network that did not"):
        run_demo(same, tmp_path / "demo", Recorder())
    assert not (tmp_path / "demo").exists()


def test_an_actor_gives_its_leases_back(tmp_path: Path) -> None:
    """They were entered and never left: a heartbeat and a lease for as long as the process lived."""
    config, out = stub_config(tmp_path), tmp_path / "run"
    slot = Slot(Job(config, out, generator=Stub(config)), Rank())
    slot.open()
    slot.worker.leases.take("000001")
    assert (out / "shards" / "000001.lease").is_file()
    slot.close()
    assert list((out / "shards").glob("*.lease")) == []
    for thread in threading.enumerate():
        if thread.name == "leases":
            thread.join(timeout=5)


@pytest.mark.parametrize("kind", [KernelInputError, KernelBackendError])
def test_an_error_of_the_kernels_is_one_line(
    prism: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[PrismError]
) -> None:
    """They ended as tracebacks, but for one command."""

    def fail(path: Path) -> None:
        raise kind("energy: got logits (2,), expected (n, classes); give a matrix")

    monkeypatch.setattr("prism_fast.operations.stats.stats", fail)
    answer = prism("stats", tmp_path)
    assert answer.code == INPUT
    assert answer.error() == "energy: got logits (2,), expected (n, classes); give a matrix"
