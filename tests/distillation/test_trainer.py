import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation import Result, Task, create_student, optimizer, train_students
from prism_fast.distillation.checkpoint import load_checkpoint
from prism_fast.distillation.task import Progress
from prism_fast.errors import DataError, InputError, RunError
from prism_fast.models.classifier import Classifier, ClassifierConfig, load_classifier
from tests.data.toy import MEAN, STD, config, write_run, write_run_with


class Stopped(Exception):
    """Stands for a killed process."""


def as_teacher(net: nn.Module) -> Classifier:
    described = ClassifierConfig(architecture="test_resnet", num_classes=3, image_size=16, mean=MEAN, std=STD)
    return Classifier(net.eval(), described)


def train(
    shards: ShardSet,
    out: Path,
    network: Classifier | None = None,
    /,
    progress: Progress | None = None,
    **changes: object,
) -> Result:
    (result,) = train_students(Task(config(**changes), shards, out, MEAN, STD, network), progress)
    return result


def weights(result: Result) -> dict[str, torch.Tensor]:
    return result.model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def interrupt(shards: ShardSet, out: Path, at: int, **changes: object) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step >= at:
            raise Stopped

    with pytest.raises(Stopped):
        train(shards, out, progress=stop, **changes)


@pytest.mark.parametrize("name", ["dali", "torch"])
def test_a_toy_is_learned(shards: ShardSet, tmp_path: Path, name: str) -> None:
    result = train(shards, tmp_path, loader=name, steps=30, lr=1e-2, ema_decay=0.9, warmup_steps=5)
    history = json.loads((result.student / "history.json").read_text())
    assert [row["step"] for row in history] == [10, 20, 30]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert result.agreement > 0.8
    assert (result.steps, result.resumed_from) == (30, 0)
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("name", ["dali", "torch"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_interrupted_and_resumed_is_bit_equal(shards: ShardSet, tmp_path: Path, name: str, optimizer: str) -> None:
    settings: dict[str, Any] = {"loader": name, "optimizer": optimizer, "checkpoint_every": 4, "lr": 1e-2}
    whole = train(shards, tmp_path / "whole", **settings)
    interrupt(shards, tmp_path / "parts", 5, **settings)  # first reported after step 8, before that is saved
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt").step == 4
    resumed = train(shards, tmp_path / "parts", **settings)
    assert resumed.resumed_from == 4
    assert same(weights(whole), weights(resumed))
    histories = [json.loads((r.student / "history.json").read_text()) for r in (whole, resumed)]
    assert histories[0] == histories[1]


def test_a_finished_run_is_left_as_it_is(shards: ShardSet, tmp_path: Path) -> None:
    first = train(shards, tmp_path, loader="torch", steps=3)
    again = train(shards, tmp_path, loader="torch", steps=3)
    assert again.resumed_from == 3
    assert same(weights(first), weights(again))


def test_the_global_random_state_decides_nothing_and_is_kept(shards: ShardSet, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(shards, tmp_path / "a", loader="torch", steps=2)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert same(weights(first), weights(train(shards, tmp_path / "b", loader="torch", steps=2)))
    assert not same(weights(first), weights(train(shards, tmp_path / "c", loader="torch", steps=2, seed=9)))


def test_a_stored_student_answers_like_the_trained_one(shards: ShardSet, tmp_path: Path) -> None:
    result = train(shards, tmp_path, loader="torch", steps=3)
    stored = load_classifier(str(result.student))
    info = stored.config
    assert (info.architecture, info.num_classes, info.image_size) == ("test_resnet", 3, 16)
    assert (info.mean, info.std) == (MEAN, STD)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(stored.net(images), result.model(images), atol=1e-5, rtol=1e-4)


def test_a_live_teacher_replaces_the_stored_logits(shards: ShardSet, tmp_path: Path) -> None:
    teacher = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    result = train(shards, tmp_path, as_teacher(teacher), teacher="live", loader="torch", label_weight=0.2)
    assert not same(weights(result), weights(train(shards, tmp_path / "stored", loader="torch", label_weight=0.2)))


def test_bfloat16_keeps_float32_weights(shards: ShardSet, tmp_path: Path) -> None:
    result = train(shards, tmp_path, loader="torch", precision="bfloat16", steps=3, image_size=64)
    assert {value.dtype for value in weights(result).values()} == {torch.float32, torch.int64}


def test_without_averaging_the_student_is_the_last_model(shards: ShardSet, tmp_path: Path) -> None:
    result = train(shards, tmp_path, loader="torch", steps=3, ema_decay=0)
    assert same(weights(result), load_checkpoint(tmp_path / "checkpoint.pt").model)


def test_norms_and_biases_are_not_decayed() -> None:
    model = create_student("test_resnet", 3)
    decayed, plain = optimizer.make_optimizer(model, config()).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    rates = [optimizer.learning_rate(step, config(steps=100, warmup_steps=10, lr=1.0)) for step in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert 0 < rates[-1] < 1e-3
    assert optimizer.learning_rate(0, config(steps=1, warmup_steps=50, lr=1.0)) == 1.0


def test_another_recipe_does_not_continue_a_checkpoint(shards: ShardSet, tmp_path: Path) -> None:
    train(shards, tmp_path, loader="torch", steps=2)
    with pytest.raises(InputError, match=r"lr = 0\.002, this run has 0\.1"):
        train(shards, tmp_path, loader="torch", steps=2, lr=0.1)


def test_other_data_does_not_continue_a_checkpoint(shards: ShardSet, tmp_path: Path) -> None:
    train(shards, tmp_path / "out", loader="torch", steps=2)
    other = ShardSet.discover(write_run(tmp_path / "other", size=16))
    with pytest.raises(InputError, match="written with shards"):
        train(other, tmp_path / "out", loader="torch", steps=2)


def test_broken_checkpoint(shards: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK half a file")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        train(shards, tmp_path, loader="torch")


def test_a_loss_that_is_not_finite_stops_the_run(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"loss is nan, gradient norm nan in steps 1-10; lower distill\.lr \(now 1e\+30"):
        train(shards, tmp_path, loader="torch", lr=1e30, warmup_steps=0)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_live_teacher_that_is_not_finite_is_named(shards: ShardSet, tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 3), torch.nan)

    with pytest.raises(RunError, match="live teacher gives logits that are not finite: 60 of 60 targets in steps 1-10"):
        train(shards, tmp_path, as_teacher(Broken()), teacher="live", loader="torch")


@pytest.mark.parametrize("name", ["dali", "torch"])
def test_stored_logits_that_are_not_finite_are_named(tmp_path: Path, name: str) -> None:
    """Before: the answer was to lower the learning rate."""
    run = write_run_with(tmp_path / "run", logits=(math.inf, 0, math.nan))
    with pytest.raises(
        RunError, match=r"shards hold logits that are not finite: \d of 60 targets.*teacher was not finite"
    ):
        train(ShardSet.discover(run), tmp_path / "out", loader=name)
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def test_a_transformer_learns_at_the_pictures_size(shards: ShardSet, tmp_path: Path) -> None:
    """Before: its positions were those of timm's own size."""
    result = train(shards, tmp_path, loader="torch", student="test_vit", image_size=32, steps=2)
    assert result.model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    stored = load_classifier(str(result.student))
    assert same(stored.net.state_dict(), result.model.state_dict())


def test_a_student_that_cannot_see_the_pictures_is_refused_before_the_first_step() -> None:
    with pytest.raises(InputError, match=r"student 'inception_v3' cannot see pictures of 16 px \(.+\); set distill"):
        create_student("inception_v3", 3, 16)


def test_trying_a_student_changes_nothing() -> None:
    torch.manual_seed(0)
    plain = create_student("test_resnet", 3)
    torch.manual_seed(0)
    tried = create_student("test_resnet", 3, 32)
    assert same(plain.state_dict(), tried.state_dict())
    assert tried.training


def test_a_batch_of_one_is_refused_with_batch_norm(shards: ShardSet, tmp_path: Path) -> None:
    """Before: "Expected more than 1 value per channel when training"."""
    with pytest.raises(
        InputError, match=r"a single picture at a time, but test_resnet normalises over the batch; raise"
    ):
        train(shards, tmp_path, loader="torch", batch_size=1)
    assert train(shards, tmp_path, loader="torch", batch_size=1, student="test_vit", image_size=32, steps=1).steps == 1


def test_the_weights_are_as_readable_as_the_rest(shards: ShardSet, tmp_path: Path) -> None:
    """Before: safetensors writes with mode 0600 whatever the umask."""
    before = os.umask(0o027)
    try:
        student = train(shards, tmp_path, loader="torch", steps=1).student
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in student.iterdir()} == {
        "README.md": 0o640, "config.json": 0o640, "history.json": 0o640, "model.safetensors": 0o640,
    }  # fmt: skip


def test_unknown_student_offers_close_matches() -> None:
    with pytest.raises(InputError, match=r"'resnet1O' is not a timm model; did you mean .*resnet1"):
        create_student("resnet1O", 3)


def test_a_teacher_must_fit_the_configuration(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'live', but there is no teacher network"):
        train(shards, tmp_path, teacher="live")
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    with pytest.raises(DataError, match=r"gives \[6, 5\] logits, the shards hold \[6, 3\]"):
        train(shards, tmp_path, as_teacher(wrong), teacher="live", loader="torch")


def test_unwritable_output(shards: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        train(shards, tmp_path / "file" / "out")


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(
    shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(torch.inf))
    with pytest.raises(RunError, match="gradient norm inf in steps 1-1"):
        train(shards, tmp_path, loader="torch", steps=1)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "student").exists()
