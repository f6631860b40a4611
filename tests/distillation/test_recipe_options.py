"""What a recipe may ask for beyond its defaults, each seen in what the trainer does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prism_fast.config import load_config
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.distillation import Result, Task, create_student, train_students
from prism_fast.distillation.optimizer import learning_rate, make_optimizer
from prism_fast.errors import DataError, InputError
from prism_fast.models.classifier import load_classifier
from prism_fast.operations.views import label_views
from prism_fast.workers.synthesize import synthesize
from tests.data.toy import MEAN, STD, config, write_run
from tests.tiny import write_config


def train(shards: ShardSet, out: Path, **changes: object) -> tuple[Result, ...]:
    return train_students(Task(config(loader="torch", **changes), shards, out, MEAN, STD))


def weights(result: Result) -> torch.Tensor:
    return torch.cat([value.flatten() for value in result.model.state_dict().values() if value.is_floating_point()])


def test_several_students_are_those_of_as_many_runs(shards: ShardSet, tmp_path: Path) -> None:
    """From the same batches: each has the weights, to the bit, that it gets alone."""
    fast = {"name": "fast", "lr": 1e-2, "optimizer": "sgd"}
    wide = {"name": "wide", "student": "test_efficientnet"}
    together = train(shards, tmp_path / "both", steps=4, students=[fast, wide])
    (alone,) = train(shards, tmp_path / "fast", steps=4, lr=1e-2, optimizer="sgd")
    (other,) = train(shards, tmp_path / "wide", steps=4, student="test_efficientnet")
    assert [one.name for one in together] == ["fast", "wide"]
    assert torch.equal(weights(together[0]), weights(alone))
    assert torch.equal(weights(together[1]), weights(other))
    assert load_classifier(str(tmp_path / "both" / "wide" / "student")).config.architecture == "test_efficientnet"


def test_a_student_that_is_ahead_waits_for_the_others(shards: ShardSet, tmp_path: Path) -> None:
    """Killed between two checkpoints, students stand at different steps."""
    both = {"students": [{"name": "a"}, {"name": "b", "lr": 1e-2}], "checkpoint_every": 2, "steps": 6}
    whole = train(shards, tmp_path / "whole", **both)

    class Killed(Exception):
        pass

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 4:
            raise Killed

    task = Task(config(loader="torch", **both), shards, tmp_path / "parts", MEAN, STD)
    with pytest.raises(Killed):
        train_students(task, stop)
    early = (tmp_path / "parts" / "b" / "checkpoint.pt").read_bytes()
    train_students(task)
    (tmp_path / "parts" / "b" / "checkpoint.pt").write_bytes(early)
    resumed = train_students(task)
    assert [one.resumed_from for one in resumed] == [6, 2]
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(weights(one), weights(other))
    histories = [json.loads((r.student / "history.json").read_text()) for r in (whole[1], resumed[1])]
    assert histories[0] == histories[1]


def test_students_of_different_sizes_share_a_decode(shards: ShardSet, tmp_path: Path) -> None:
    small, large = train(
        shards, tmp_path, steps=2, students=[{"name": "s", "image_size": 16}, {"name": "l", "image_size": 24}]
    )
    assert load_classifier(str(small.student)).config.image_size == 16
    assert load_classifier(str(large.student)).config.image_size == 24


def test_parts_of_a_batch_give_the_same_update(shards: ShardSet, tmp_path: Path) -> None:
    """Of a student whose samples do not see each other."""
    settings = {"student": "test_vit", "image_size": 32, "steps": 3}
    (whole,) = train(shards, tmp_path / "whole", **settings)
    (parts,) = train(shards, tmp_path / "parts", **settings, accumulate=3)
    torch.testing.assert_close(weights(whole), weights(parts), atol=1e-4, rtol=1e-3)


def test_parts_that_do_not_divide_the_batch_are_refused(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a rank's batch of 6 cannot be cut into distill\.accumulate = 4"):
        train(shards, tmp_path, accumulate=4)


@pytest.mark.parametrize("optimizer", ["lamb", "lion", "muon", "adan", "nadamw"])
def test_optimisers_of_timm_learn_and_resume(shards: ShardSet, tmp_path: Path, optimizer: str) -> None:
    settings = {"optimizer": optimizer, "lr": 2e-3, "steps": 6, "checkpoint_every": 3}
    (whole,) = train(shards, tmp_path / "whole", **settings)

    class Killed(Exception):
        pass

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 6:
            raise Killed

    task = Task(config(loader="torch", **settings), shards, tmp_path / "parts", MEAN, STD)
    with pytest.raises(Killed):
        train_students(task, stop)
    (resumed,) = train_students(task)
    assert resumed.resumed_from == 3
    assert torch.equal(weights(whole), weights(resumed))


def test_layers_nearer_to_the_input_learn_more_slowly() -> None:
    model = create_student("test_resnet", 3)
    rates = {id(p): group["lr_scale"] for group in make_optimizer(model, config(layer_decay=0.5)).param_groups
             for p in group["params"]}  # fmt: skip
    first, *_, last = model.parameters()
    assert rates[id(last)] == 1.0
    assert rates[id(first)] < 0.6


def test_nothing_is_decayed_without_decay() -> None:
    """Before: too many values to unpack."""
    model = create_student("test_resnet", 3)
    groups = make_optimizer(model, config(weight_decay=0.0)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.0}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_a_rate_that_is_stable_and_falls_at_the_end() -> None:
    recipe = config(steps=100, warmup_steps=10, lr=1.0, schedule="wsd", decay_share=0.2)
    rates = [learning_rate(step, recipe) for step in range(100)]
    assert rates[10:82] == [1.0] * 72
    assert rates[82:] == pytest.approx([(100 - step) / 18 for step in range(82, 100)])


def test_activations_computed_again_change_nothing(shards: ShardSet, tmp_path: Path) -> None:
    settings = {"student": "test_vit", "image_size": 32, "steps": 2}
    (plain,) = train(shards, tmp_path / "plain", **settings)
    (again,) = train(shards, tmp_path / "again", **settings, checkpoint_activations=True)
    torch.testing.assert_close(weights(plain), weights(again), atol=1e-6, rtol=1e-5)


def test_a_look_is_kept_and_the_best_one_saved(shards: ShardSet, tmp_path: Path) -> None:
    look = {"share": 0.3, "every": 4}
    (result,) = train(shards, tmp_path, steps=12, validation=look, lr=1e-2)
    rows = json.loads((result.student / "history.json").read_text())
    looked = [row for row in rows if "held_out_divergence" in row]
    assert [row["step"] for row in looked] == [4, 8, 12]
    assert all(0 <= row["held_out_agreement"] <= 1 and row["held_out_divergence"] >= 0 for row in looked)
    assert result.best is not None
    best = min(looked, key=lambda row: row["held_out_divergence"])
    assert json.loads((result.best / "history.json").read_text())[-1]["step"] == best["step"]


def test_training_stops_when_nothing_gets_better(shards: ShardSet, tmp_path: Path) -> None:
    look = {"share": 0.3, "every": 1, "patience": 2}
    (result,) = train(shards, tmp_path, steps=12, validation=look, lr=1e-12, ema_decay=0)
    assert result.steps < 12
    (again,) = train(shards, tmp_path, steps=12, validation=look, lr=1e-12, ema_decay=0)
    assert (again.steps, again.resumed_from) == (result.steps, result.steps)


def test_what_is_held_out_is_not_trained_on(shards: ShardSet, tmp_path: Path) -> None:
    (with_share,) = train(shards, tmp_path / "a", steps=2, validation={"share": 0.3})
    (without,) = train(shards, tmp_path / "b", steps=2)
    assert not torch.equal(weights(with_share), weights(without))


@pytest.mark.slow
def test_a_compiled_student_learns_the_same(shards: ShardSet, tmp_path: Path) -> None:
    settings = {"student": "test_vit", "image_size": 32, "steps": 2}
    (plain,) = train(shards, tmp_path / "plain", **settings)
    (fast,) = train(shards, tmp_path / "fast", **settings, compile=True)
    torch.testing.assert_close(weights(plain), weights(fast), atol=1e-4, rtol=1e-3)
    assert fast.model.state_dict().keys() == plain.model.state_dict().keys()


def test_pictures_that_are_not_there_are_told_before_the_first_step(shards: ShardSet, tmp_path: Path) -> None:
    """Before: at the first look, hundreds of steps later."""
    with pytest.raises(DataError, match="nowhere"):
        train(shards, tmp_path, steps=2, validation={"share": 0.3, "pictures": str(tmp_path / "nowhere")})
    assert not (tmp_path / "checkpoint.pt").exists()


def test_of_one_sample_nothing_is_held_out(tmp_path: Path) -> None:
    """Before: a traceback of torch.cat."""
    one = ShardSet.discover(write_run(tmp_path / "run", rows=1))
    with pytest.raises(InputError, match="of one sample none can be held out"):
        train(one, tmp_path / "out", steps=2, validation={"share": 0.5})


def test_other_views_do_not_continue_a_checkpoint(tmp_path: Path) -> None:
    """How many there are says which of them an epoch shows. Before: the batches changed in silence."""
    config_, run = load_config(write_config(tmp_path)), tmp_path / "run"
    synthesize(config_, run)
    label_views(run, 2)
    recipe = {"teacher": "views", "student": "test_resnet", "steps": 2, "batch_size": 4, "image_size": 32}
    train(ShardSet.discover(run), tmp_path / "out", **recipe)
    label_views(run, 3)
    with pytest.raises(InputError, match="was written with views = "):
        train(ShardSet.discover(run), tmp_path / "out", **recipe)
