"""A checkpoint is what was saved, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation import Task, train_students
from prism_fast.distillation.checkpoint import Checkpoint, checked, load_checkpoint, save_checkpoint
from prism_fast.distillation.optimizer import restore_optimizer
from prism_fast.errors import DataError, RunError
from tests.damage import make_pipe, rewrite
from tests.data.toy import MEAN, STD, config

ADVICE = r"delete it and the training begins again"


def made() -> dict[str, Any]:
    """What a checkpoint holds after two steps of five."""
    net = torch.nn.Linear(2, 3)
    return {
        "step": 2,
        "identity": {"steps": 5, "student": "x"},
        "model": net.state_dict(),
        "ema": net.state_dict(),
        "optimizer": torch.optim.AdamW(net.parameters()).state_dict(),
        "loader": {"loader": "torch", "position": 12},
        "loss": {},
        "scaler": {},
        "history": [{"step": 2, "loss": 0.5}],
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoint.pt", Checkpoint(**made()))
    return tmp_path / "checkpoint.pt"


def refused(path: Path, reason: str) -> None:
    with pytest.raises(
        DataError, match=rf"checkpoint\.pt cannot be read as a checkpoint \(.*{reason}.*\); {ADVICE}"
    ) as e:
        load_checkpoint(path)
    assert "\n" not in str(e.value)
    assert "weights_only" not in str(e.value)


def test_one_flipped_bit_anywhere_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for place in (0, 5, 40, 93, 94, *range(100, len(whole), 211), len(whole) - 1):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        refused(saved, "")
    saved.write_bytes(whole)
    assert load_checkpoint(saved).step == 2


@pytest.mark.parametrize(
    "change", [bytearray.clear, lambda d: d.__delitem__(slice(len(d) // 2, None)), lambda d: d.append(0)]
)
def test_another_length_is_refused(saved: Path, change: Callable[[bytearray], object]) -> None:
    rewrite(saved, change)
    refused(saved, "")


def test_zeros_get_no_advice_to_trust_them(saved: Path) -> None:
    saved.write_bytes(bytes(4096))
    refused(saved, "its content is another one")


def test_a_pipe_is_not_waited_for(saved: Path) -> None:
    make_pipe(saved)
    refused(saved, "it is a pipe or a device, not a file")


def test_one_of_before_there_was_a_hash_is_read(tmp_path: Path) -> None:
    torch.save(made(), tmp_path / "checkpoint.pt")
    assert load_checkpoint(tmp_path / "checkpoint.pt").loader["position"] == 12


@pytest.mark.parametrize("value", [None, 7, "text", [], torch.zeros(2), {"cpu": "text"}])
@pytest.mark.parametrize("part", ["model", "ema", "loss", "history", "step", "identity"])
def test_each_part_is_of_its_type(tmp_path: Path, part: str, value: object) -> None:
    torch.save({**made(), part: value}, tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", "" if part == "identity" else part)


@pytest.mark.parametrize("value", [-5, 0, 1_000_000_000, 3, True, 2.0])
def test_the_step_is_one_of_the_recipe_and_the_last_of_the_history(tmp_path: Path, value: object) -> None:
    torch.save({**made(), "step": value}, tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", "step")


@pytest.mark.parametrize("part", ["model", "loader", "step"])
def test_a_part_that_is_missing_is_named(tmp_path: Path, part: str) -> None:
    torch.save({key: value for key, value in made().items() if key != part}, tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", part)


def test_something_else_of_torch_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", "")


def test_one_of_before_batches_changed_begins_again(tmp_path: Path) -> None:
    torch.save({**made(), "rng": {"cpu": torch.get_rng_state()}}, tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", "it is of a version whose batches were other ones")


def test_averages_of_another_shape_are_refused() -> None:
    net = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.zeros(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    restore_optimizer(optimizer, state)
    state["state"][1]["exp_avg"] = torch.zeros(4)
    with pytest.raises(ValueError, match=r"exp_avg is \[4\] for a parameter of \[3\]"):
        restore_optimizer(optimizer, state)


def test_what_does_not_fit_the_student_is_the_checkpoints_fault(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 3)
    wanted = rf"checkpoint\.pt cannot be read .*Error.*loading state_dict.*{ADVICE}"
    with pytest.raises(DataError, match=wanted) as caught, checked(tmp_path / "checkpoint.pt"):
        net.load_state_dict(torch.nn.Linear(4, 3).state_dict())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "history.json", "model.safetensors"])
def test_a_pipe_in_the_students_place_is_refused(shards: ShardSet, tmp_path: Path, name: str) -> None:
    (tmp_path / "student").mkdir()
    make_pipe(tmp_path / "student" / name)
    with pytest.raises(
        RunError, match=rf"student/{name}: it is a pipe or a device, not a file; the same command again"
    ):
        train_students(Task(config(loader="torch", steps=1), shards, tmp_path, MEAN, STD))
    assert (tmp_path / "student" / name).is_fifo()
    assert not list((tmp_path / "student").glob("*.tmp-*"))
