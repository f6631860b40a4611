"""Networks that hand out features, and the sum of a recipe's terms."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn

from prism_fast.config import losses as config
from prism_fast.distillation.losses import (
    DistillationLoss,
    Featured,
    dist_loss,
    hard_label_loss,
    kl_loss,
    make_loss,
    rkd_loss,
)
from prism_fast.distillation.losses.simkd import SimKDTerm
from prism_fast.distillation.outputs import Labels, Outputs
from prism_fast.errors import InputError

CLASSES, SIDE = 5, 32
NETWORKS = {"test_resnet": 5, "test_efficientnet": 6, "test_convnext": 4, "test_vit": 6, "test_mambaout": 4}
LABELS = Labels(torch.tensor([0, 3, 1, 4]))
EVERY = tuple(
    kind()
    for kind in (
        config.KL,
        config.HardLabel,
        config.MultiTemperature,
        config.DKD,
        config.DIST,
        config.NKD,
        config.MLKD,
        config.FitNet,
        config.AttentionTransfer,
        config.RKD,
        config.CRD,
        config.SimKD,
    )
)


def network(name: str = "test_resnet", **more: Any) -> nn.Module:
    torch.manual_seed(0)
    sized = {"img_size": SIDE} if "vit" in name else {}
    net: nn.Module = timm.create_model(name, pretrained=False, num_classes=CLASSES, **sized, **more)
    return net


def pictures(n: int = 4, side: int = SIDE) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_every_term_of_the_configuration_is_here() -> None:
    assert tuple(term.name for term in EVERY) == config.LOSSES


@pytest.mark.parametrize(("name", "count"), NETWORKS.items())
def test_features_of_timms_networks(name: str, count: int) -> None:
    net = network(name)
    net.eval()
    outputs = Featured(net, maps=True)(pictures())
    torch.testing.assert_close(outputs.logits, net(pictures()))
    assert len(outputs.maps) == count
    assert all(x.ndim == 4 and len(x) == 4 and x.shape[2] == x.shape[3] for x in outputs.maps)
    assert outputs.maps[0].shape[2] >= outputs.maps[-1].shape[2]
    assert outputs.pooled is not None
    torch.testing.assert_close(net.get_classifier()(outputs.pooled), outputs.logits)  # type: ignore[operator]


def test_without_maps_it_is_the_network_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network().eval()
    monkeypatch.setattr(type(net), "forward_intermediates", None)
    outputs = Featured(net)(pictures())
    assert torch.equal(outputs.logits, net(pictures()))
    assert (outputs.maps, outputs.pooled) == ((), None)


class Own(nn.Module):
    """A network that knows its features itself."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images).logits

    def features(self, images: torch.Tensor) -> Outputs:
        pooled = images.mean((2, 3))
        return Outputs(self.head(pooled), (images,), pooled)


def test_a_networks_own_features_are_taken() -> None:
    net = Own()
    outputs = Featured(net, maps=True)(pictures())
    assert torch.equal(outputs.logits, net(pictures()))
    assert torch.equal(outputs.maps[0], pictures())
    assert not Featured(net)(pictures()).maps


def test_a_part_called_features_is_no_method() -> None:
    """VGG and DenseNet have a stack of layers of that name."""
    net = timm.create_model("densenet121", num_classes=CLASSES, growth_rate=4, block_config=(1, 1, 1, 1)).eval()
    assert callable(net.features)
    outputs = Featured(net, maps=True)(pictures())
    torch.testing.assert_close(outputs.logits, net(pictures()))
    assert outputs.maps


def test_a_network_without_features_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, CLASSES))
    Featured(net)
    with pytest.raises(InputError, match="Sequential gives no feature maps"):
        Featured(net, maps=True)
    with pytest.raises(InputError, match="Sequential gives no feature maps"):
        make_loss((config.RKD(),), net, network(), CLASSES, SIDE)


def test_the_sum_is_weighted() -> None:
    s, t = Outputs(torch.randn(4, CLASSES)), Outputs(torch.randn(4, CLASSES))
    terms = (
        config.KL(weight=0.5, temperature=2.0),
        config.DIST(weight=2.0),
        config.HardLabel(weight=0.1, smoothing=0.1),
    )
    loss = make_loss(terms, network(), None, CLASSES, SIDE)
    expected = 0.5 * kl_loss(s.logits, t.logits, 2.0)
    expected = expected + 2 * dist_loss(s.logits, t.logits, temperature=1.0, beta=1.0, gamma=1.0)
    expected = expected + 0.1 * hard_label_loss(s.logits, LABELS, 0.1)
    torch.testing.assert_close(loss(s, t, LABELS), expected)
    assert not loss.wants_maps
    assert not list(loss.parameters())
    assert not loss.state_dict()


def built(*terms: config.Loss, teacher: str = "test_vit") -> tuple[DistillationLoss, nn.Module, nn.Module]:
    own, other = network(), network(teacher)
    torch.manual_seed(2)
    return make_loss(terms, own, other, CLASSES, SIDE), own, other


@pytest.mark.parametrize("teacher", NETWORKS)
@pytest.mark.parametrize("term", [term for term in EVERY if term.name != "simkd"], ids=lambda term: term.name)
def test_every_term_trains_a_student_of_another_family(term: config.Loss, teacher: str) -> None:
    loss, student, other = built(term, teacher=teacher)
    assert loss.wants_maps == (term.name in config.FEATURE_LOSSES)
    with torch.no_grad():
        target = Featured(other.eval(), loss.wants_maps)(pictures())
    found = loss(Featured(student.train(), loss.wants_maps)(pictures()), target, LABELS)
    found.backward()
    gradients = [x.grad for x in student.parameters() if x.grad is not None]
    assert found.isfinite()
    assert all(x.isfinite().all() for x in gradients)
    assert any(x.abs().sum() > 0 for x in gradients)
    assert all(x.grad is not None for x in loss.parameters())


@pytest.mark.parametrize(("teacher", "maps"), [("test_resnet", True), ("test_efficientnet", True), ("test_vit", False)])
def test_simkd_takes_what_the_teachers_classifier_sees(teacher: str, maps: bool) -> None:
    other = network(teacher)
    loss = make_loss((config.SimKD(),), copy.deepcopy(other), other, CLASSES, SIDE)
    outputs = Featured(other.eval(), maps=True)(pictures())
    assert float(loss(outputs, outputs, LABELS).detach()) == 0
    term = loss.terms[0]
    assert isinstance(term, SimKDTerm)
    assert term.maps is maps


def test_simkd_refuses_a_student_of_other_channels() -> None:
    with pytest.raises(InputError, match=r"student has 96, the teacher 64; .*student_from or inherit"):
        built(config.SimKD())


def test_making_a_loss_leaves_networks_and_random_state_as_they_were() -> None:
    student, teacher = network().train(), network("test_convnext").eval()
    before = {**student.state_dict(prefix="s."), **teacher.state_dict(prefix="t.")}
    before = {name: value.clone() for name, value in before.items()}
    state = torch.get_rng_state()
    make_loss((config.AttentionTransfer(), config.RKD(), config.KL()), student, teacher, CLASSES, SIDE)
    assert torch.equal(torch.get_rng_state(), state)
    after = {**student.state_dict(prefix="s."), **teacher.state_dict(prefix="t.")}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert student.training
    assert not teacher.training


def test_parts_that_learn_follow_the_callers_seed_and_are_kept() -> None:
    terms = (config.FitNet(), config.CRD(dimensions=8, negatives=16))
    first, second = built(*terms)[0], built(*terms)[0]
    assert {name.split(".")[1] for name in dict(first.named_parameters())} == {"0", "1"}
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert "terms.1.teachers" in first.state_dict()


def test_a_teacher_of_a_fixed_size() -> None:
    student, teacher = network(), network("test_vit", dynamic_img_size=False)
    with pytest.raises(InputError, match="test_vit gives no features of a picture of 64 px"):
        make_loss((config.RKD(),), student, teacher, CLASSES, 64)
    loss = make_loss((config.FitNet(),), student, teacher, CLASSES, 64, teacher_size=SIDE)
    with torch.no_grad():
        target = Featured(teacher.eval(), maps=True)(pictures())
    assert loss(Featured(student, maps=True)(pictures(side=64)), target, LABELS).isfinite()


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((), "at least one term"),
        ((config.FitNet(layer=9),), "fitnet's layer wants the last 10 feature maps, the student has 5"),
        ((config.AttentionTransfer(layers=6),), "attention's layers wants the last 6 feature maps, the student has 5"),
    ],
)
def test_what_cannot_be_is_said_before_training(terms: tuple[config.Loss, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_loss(terms, network(), network("test_vit"), CLASSES, SIDE)


def test_features_need_a_teacher_and_labels_another_class() -> None:
    with pytest.raises(InputError, match=r"rkd compares features, .* set distill.teacher to live"):
        make_loss((config.KL(), config.RKD()), network(), None, CLASSES, SIDE)
    with pytest.raises(InputError, match="dkd tells the label from other classes, but there is 1"):
        make_loss((config.DKD(),), network(), None, 1, SIDE)


def test_autocast_does_not_reach_the_losses() -> None:
    loss, student, teacher = built(config.RKD(), config.MLKD(), config.CRD(dimensions=8, negatives=16))
    s, t = (Featured(net.eval(), maps=True)(pictures()) for net in (student, teacher))
    loss.eval()
    plain = loss(s, t, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(s, t, LABELS), plain)


def test_a_student_in_half_precision_gives_a_loss_in_float32() -> None:
    terms = tuple(term for term in EVERY if term.name != "simkd")
    loss, student, teacher = built(*terms)
    with torch.autocast("cpu", torch.bfloat16):
        s, t = (Featured(net, maps=True)(pictures()) for net in (student, teacher))
    assert s.pooled is not None
    assert s.pooled.dtype == torch.bfloat16
    found = loss(s, t, LABELS)
    assert found.dtype == torch.float32
    found.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in loss.parameters())


def test_rkd_of_the_recipe_compares_the_vectors_before_the_classifier() -> None:
    loss, student, teacher = built(config.RKD(weight=2.0))
    s, t = (Featured(net.eval(), maps=True)(pictures()) for net in (student, teacher))
    torch.testing.assert_close(loss(s, t, LABELS), 2 * rkd_loss(s.pooled, t.pooled, distance=25.0, angle=50.0))
