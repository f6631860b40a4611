"""Students made from the teacher: what they keep of it, what they cost, and that they are read back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prism_fast.config import DistillConfig
from prism_fast.config.losses import KL, SimKD
from prism_fast.distillation.inherit.prune import gradients, kept_channels
from prism_fast.distillation.inherit.shallow import removable
from prism_fast.distillation.learner import hold_statistics
from prism_fast.distillation.student import MEAN, make_student, save_student
from prism_fast.errors import InputError
from prism_fast.evaluation.cost import multiply_adds
from prism_fast.models.architecture import create_network
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import Classifier, ClassifierConfig, load_classifier, save_classifier
from prism_fast.models.structure.description import Structure

SIDES = {"test_resnet": 32, "test_efficientnet": 32, "regnetx_002": 32, "test_convnext": 32, "test_vit": 160}


def _teacher(name: str = "test_resnet", classes: int = 3) -> Classifier:
    """Random weights, statistics that are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_network(name, classes, SIDES[name])
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.1)
    config = ClassifierConfig(
        architecture=name, num_classes=classes, image_size=SIDES[name], mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )
    return Classifier(net.eval().requires_grad_(False), config)


def _recipe(size: int = 32, **changes: Any) -> DistillConfig:
    losses = changes.pop("losses", (SimKD(),))
    return DistillConfig(
        **{"student_from": "teacher", "image_size": size, "losses": losses, "teacher": "live", **changes}
    )


def _pictures(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def _batches() -> Iterator[Tensor]:
    yield _pictures(32, 8)
    yield _pictures(32, 8)


def _net(made: Classifier) -> Any:
    return made.net


def _read_back(student: Classifier, side: int, folder: Path) -> None:
    net = student.net.eval()
    save_student(folder, net, student.config, [])
    found = load_classifier(str(folder))
    assert found.config == student.config
    assert torch.equal(found.net(_pictures(side)), net(_pictures(side)).detach())


@pytest.mark.parametrize("name", SIDES)
def test_the_first_blocks_are_the_teachers(name: str, tmp_path: Path) -> None:
    teacher, side = _teacher(name), SIDES[name]
    student = make_student(_recipe(side, inherit={"blocks": 2}), 3, teacher)
    kept = student.net.state_dict()
    theirs = teacher.net.state_dict()
    trunk = [key for key in kept if key.startswith("trunk.")]
    assert len(trunk) > 4
    assert all(torch.equal(kept[key], theirs[key.removeprefix("trunk.")]) for key in trunk)
    assert all(torch.equal(kept[key], theirs[key[5:]]) for key in kept if key.startswith("head."))
    assert student.config.mean == teacher.config.mean
    assert student.net.training
    outputs, own = _net(student).features(_pictures(side)), _net(teacher).forward_features(_pictures(side))
    assert outputs.pooled.shape[1] == _net(teacher).num_features == own.shape[1 if own.ndim == 4 else 2]
    outputs.logits.sum().backward()
    learning = [weight for weight in student.net.parameters() if weight.requires_grad]
    assert all(weight.grad is not None for weight in learning)
    assert not any(weight.requires_grad for weight in _net(student).head.parameters())
    _read_back(student, side, tmp_path)


@pytest.mark.parametrize("name", SIDES)
def test_all_of_the_teacher_is_the_teacher(name: str) -> None:
    teacher, side = _teacher(name), SIDES[name]
    student = make_student(_recipe(side), 3, teacher)
    assert student.config.structure is None
    assert torch.equal(student.net.eval()(_pictures(side)), teacher.net(_pictures(side)))
    assert all(weight.requires_grad for weight in student.net.parameters())
    with torch.no_grad():
        next(student.net.parameters()).add_(1)
    assert not torch.equal(next(student.net.parameters()), next(teacher.net.parameters()))


def test_a_new_classifier_has_the_channels_of_the_last_block() -> None:
    recipe = _recipe(inherit={"blocks": 2, "head": "linear"}, losses=(KL(),))
    net = _net(make_student(recipe, 3, _teacher()))
    assert net.get_classifier().in_features == 48
    assert net.features(_pictures(32)).maps[-1].shape[1:] == (48, 4, 4)
    assert all(weight.requires_grad for weight in net.parameters())


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("losses", [(KL(),), (SimKD(),)], ids=["kl", "simkd"])
def test_half_the_channels_cost_about_a_quarter(name: str, losses: tuple[Any, ...], tmp_path: Path) -> None:
    teacher, side = _teacher(name), SIDES[name]
    recipe = _recipe(side, inherit={"width": 0.5, "criterion": "magnitude"}, losses=losses)
    student = make_student(recipe, 3, teacher)
    share = _cost(student.net, side) / _cost(teacher.net, side)
    assert 0.2 < share < 0.45
    pooled = _net(student).features(_pictures(side)).pooled.shape[1]
    assert (
        pooled == _net(teacher).num_features if losses[0].name == "simkd" else pooled <= _net(teacher).num_features // 2
    )
    _read_back(student, side, tmp_path)


def _cost(net: nn.Module, side: int) -> int:
    return multiply_adds(copy.deepcopy(net).eval().requires_grad_(False), side)


def test_channels_that_say_nothing_go_without_a_trace() -> None:
    """Half of every batch norm gives zeros; without them each output is what it was."""
    teacher = _teacher("regnetx_002")
    with torch.no_grad():
        for module in teacher.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Groups of eight channels, of which each loses the same ones.
                silent = torch.arange(module.num_features) % 8 >= 4
                module.weight[silent] = 0
                module.bias[silent] = 0
    recipe = _recipe(inherit={"width": 0.5, "criterion": "batch_norm"}, losses=(KL(),))
    student = make_student(recipe, 3, teacher)
    assert _cost(student.net, 32) < 0.4 * _cost(teacher.net, 32)
    torch.testing.assert_close(student.net.eval()(_pictures(32)), teacher.net(_pictures(32)), rtol=1e-4, atol=1e-5)


def test_the_gradient_keeps_what_the_teacher_uses() -> None:
    """The classifier looks at some channels only; by magnitude they would be the first to go."""
    teacher = _teacher("test_resnet")
    net: Any = teacher.net
    used = torch.arange(96) % 2 == 0
    with torch.no_grad():
        net.fc.weight[:, ~used] = 0
        for block in net.layer4:
            block.bn2.weight[~used] *= 20
    alive = gradients(teacher, _batches)["fc.weight"].ne(0).any(0) & used  # some are zero for all pictures
    kept = {}
    for criterion in ("gradient", "magnitude"):
        recipe = _recipe(inherit={"width": 0.5, "criterion": criterion}, losses=(KL(),))
        weight = _net(make_student(recipe, 3, teacher, _batches)).get_classifier().weight
        assert weight.shape == (3, 48)
        kept[criterion] = {tuple(column) for column in weight.T.tolist()}
    wanted = {tuple(column) for column in net.fc.weight[:, alive].T.tolist()}
    assert len(wanted) > 16
    assert wanted <= kept["gradient"]
    assert len(wanted & kept["magnitude"]) < len(wanted) // 2


@pytest.mark.parametrize(("channels", "width", "kept"), [(64, 0.5, 32), (24, 0.5, 16), (8, 0.25, 8), (4, 0.5, 4)])
def test_channels_are_kept_by_eights(channels: int, width: float, kept: int) -> None:
    assert kept_channels(channels, width) == kept


@pytest.mark.parametrize("name", ["regnetx_002", "test_convnext", "test_vit"])
def test_residual_blocks_go_that_are_missed_least(name: str, tmp_path: Path) -> None:
    """Those whose own part is zero are not missed at all."""
    teacher, side = _teacher(name), SIDES[name]
    blocks = removable(teacher)
    assert len(blocks) > 1
    silent = blocks[::2]
    with torch.no_grad():
        for path in blocks:
            for weight in teacher.net.get_submodule(path).parameters():
                nn.init.normal_(weight, std=0.0 if path in silent else 0.3)
    depth = (len(blocks) - len(silent)) / len(blocks)
    student = make_student(_recipe(side, inherit={"depth": depth}, losses=(KL(),)), 3, teacher, _batches)
    assert student.config.structure is not None
    assert set(student.config.structure.left_out) == set(silent)
    assert _cost(student.net, side) < _cost(teacher.net, side)
    torch.testing.assert_close(student.net.eval()(_pictures(side)), teacher.net(_pictures(side)))
    _read_back(student, side, tmp_path)


def test_first_groups_can_be_shallower_still(tmp_path: Path) -> None:
    student = make_student(_recipe(inherit={"blocks": 3, "depth": 0.0}), 3, _teacher("regnetx_002"), _batches)
    assert student.config.structure is not None
    assert student.config.structure.left_out
    assert all(path.startswith(("s1.", "s2.", "s3.")) for path in student.config.structure.left_out)
    _read_back(student, 32, tmp_path)


def test_the_teachers_statistics_are_kept() -> None:
    teacher = _teacher("regnetx_002")
    recipe = _recipe(inherit={"blocks": 3, "statistics": "teacher"})
    net = make_student(recipe, 3, teacher).net
    hold_statistics(net)
    with torch.no_grad():
        net(_pictures(32))
    kept, theirs = net.state_dict(), teacher.net.state_dict()
    own = [key for key in kept if key.endswith("running_mean") and key.startswith("trunk.")]
    assert len(own) > 4
    assert all(torch.equal(kept[key], theirs[key.removeprefix("trunk.")]) for key in own)
    assert kept["projection.1.running_mean"].any()


def test_a_lower_resolution_keeps_every_weight(tmp_path: Path) -> None:
    options = {"dynamic_img_size": False}
    net = create_network("test_vit", 3, 160, **options).eval()
    teacher = Classifier(net, _teacher("test_vit").config, options)
    student = make_student(_recipe(80), 3, teacher)
    assert student.config.image_size == 80
    kept, theirs = student.net.state_dict(), teacher.net.state_dict()
    assert kept.pop("trunk.pos_embed").shape == (1, 26, 64)  # 5 x 5 patches and a token
    assert all(torch.equal(kept[key], theirs[key.partition(".")[2]]) for key in kept)
    _read_back(student, 80, tmp_path)


def test_all_three_at_once(tmp_path: Path) -> None:
    teacher = _teacher("test_vit")
    inherit = {"blocks": 3, "width": 0.5, "criterion": "magnitude"}
    student = make_student(_recipe(80, inherit=inherit), 3, teacher)
    assert _cost(student.net, 80) < 0.1 * _cost(teacher.net, 160)
    _read_back(student, 80, tmp_path)


def test_options_of_timm_are_inherited(tmp_path: Path) -> None:
    options = {"drop_path_rate": 0.0, "act_layer": "silu"}
    net = create_network("test_resnet", 3, 32, **options).eval()
    teacher = Classifier(net, _teacher().config, options)
    for inherit in ({}, {"blocks": 2}):
        student = make_student(_recipe(inherit=inherit), 3, teacher)
        assert student.config.structure is not None
        assert student.config.structure.options == options
        _read_back(student, 32, tmp_path / str(len(inherit)))


def test_a_fresh_student_ends_in_the_teachers_classifier(tmp_path: Path) -> None:
    teacher = _teacher("test_efficientnet")
    recipe = _recipe(student="test_resnet", student_from="scratch")
    student = make_student(recipe, 3, teacher)
    assert student.config.architecture == "test_resnet"
    net: Any = student.net
    assert torch.equal(net.head.classifier.weight, _net(teacher).classifier.weight)
    features = _net(teacher).forward_features(_pictures(32))
    assert net.features(_pictures(32)).maps[-1].shape[1] == features.shape[1]
    torch.testing.assert_close(net.forward_head(features), teacher.net(_pictures(32)))
    _read_back(student, 32, tmp_path)


def test_a_fresh_student_is_as_ever() -> None:
    student = make_student(_recipe(student_from="scratch", student="test_resnet", losses=(), teacher="stored"), 3)
    assert (student.config.structure, student.config.mean) == (None, MEAN)
    assert student.net.training


def test_first_weights_come_from_a_directory(tmp_path: Path) -> None:
    first = _teacher()
    save_classifier(first.net, first.config, tmp_path)
    recipe = _recipe(
        student_from="scratch", student="test_resnet", losses=(KL(),), student_init=str(tmp_path), image_size=48
    )
    same = make_student(recipe, 3)
    assert torch.equal(same.net.eval()(_pictures(48)), first.net(_pictures(48)))
    assert (same.config.mean, same.config.image_size) == (first.config.mean, 48)
    other = make_student(recipe, 5)
    assert other.net(_pictures(48)).shape == (2, 5)
    assert torch.equal(_net(other).layer4[0].conv1.weight, _net(first).layer4[0].conv1.weight)
    with pytest.raises(InputError, match=r"holds a test_resnet; set distill\.student to it, got resnet10t"):
        make_student(recipe.model_copy(update={"student": "resnet10t"}), 3)


def _wrapped() -> Classifier:
    return Classifier(nn.Sequential(_teacher().net), _teacher().config)


def _cut_already() -> Classifier:
    config = _teacher().config.model_copy(update={"structure": Structure()})
    return Classifier(_teacher().net, config)


REFUSED: dict[str, tuple[dict[str, Any], Classifier | None, str]] = {
    "no teacher": ({}, None, r"student_from is teacher, and there is no teacher network"),
    "no teacher for simkd": ({"student_from": "scratch"}, None, r"simkd is a loss, and there is no teacher network"),
    "other classes": ({}, _teacher(classes=4), r"the teacher knows 4 classes, the shards hold 3"),
    "too many blocks": ({"inherit": {"blocks": 5}}, _teacher(), r"ResNet has 4 block groups; expected 1 to 4"),
    "no pictures": ({"inherit": {"width": 0.5}}, _teacher(), r"criterion is gradient, which needs synthetic pictures"),
    "no pictures to leave blocks out by": ({"inherit": {"depth": 0.5}}, _teacher(), r"depth below 1 needs synthetic"),
    "no residual block": (
        {"inherit": {"depth": 0.5}},
        _teacher("test_efficientnet"),
        r"test_efficientnet has no residual block to leave out",
    ),
    "no batch norm": (
        {"inherit": {"width": 0.5, "criterion": "batch_norm"}},
        _teacher("test_convnext"),
        r"test_convnext has no batch norm",
    ),
    "nothing to spare": (
        {"inherit": {"width": 0.999, "criterion": "magnitude"}, "losses": (KL(),)},
        _teacher(),
        r"cannot be made narrower \(no layer has a channel to spare",
    ),
    "a new classifier for simkd": ({"inherit": {"blocks": 2, "head": "linear"}}, _teacher(), r"inherit\.head to simkd"),
    "two sources": ({"student_init": "there"}, _teacher(), r"student_init gives weights too"),
    "something around timm": ({}, _wrapped(), r"is not a whole timm network"),
    "cut already": ({}, _cut_already(), r"is not a whole timm network"),
    "no such student": ({"student_from": "scratch", "student": "resnet1O"}, _teacher(), r"'resnet1O' is not a timm"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_made_is_refused(kind: str) -> None:
    changes, teacher, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        make_student(_recipe(**changes), 3, teacher)


def test_the_bundled_teacher_at_a_fifth() -> None:
    """The cut that was measured first: five of seven groups at 64 px."""
    teacher = load_classifier(resolve("minis", "teacher"))
    student = make_student(_recipe(64, inherit={"blocks": 5}), 16, teacher)
    assert multiply_adds(student.net.eval().requires_grad_(False), 64) / multiply_adds(teacher.net, 128) < 0.18
    assert sum(weight.numel() for weight in student.net.parameters()) < 0.26 * sum(
        weight.numel() for weight in teacher.net.parameters()
    )
    assert _net(student).features(_pictures(64)).maps[-1].shape[1:] == (1280, 4, 4)
