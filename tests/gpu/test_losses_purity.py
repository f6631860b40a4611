"""No loss waits for the GPU or copies between devices: on a faked one, on meta, and on a real one."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from prism_fast.config import losses as config
from prism_fast.distillation.losses import DistillationLoss, Featured, make_loss
from prism_fast.distillation.outputs import Labels, Outputs
from tests.gpu.fake import CUDA, Log, on_fake_cuda

N, CLASSES, SIDE = 6, 5, 32
TERMS = (
    config.KL(standardise=True),
    config.HardLabel(smoothing=0.1),
    config.MultiTemperature(),
    config.DKD(),
    config.DIST(),
    config.NKD(),
    config.MLKD(),
    config.FitNet(),
    config.AttentionTransfer(),
    config.RKD(),
    config.CRD(negatives=16),
    config.SimKD(),
)
EACH = pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
MIXED = pytest.mark.parametrize("mixed", [False, True])


def made(term: config.Loss) -> DistillationLoss:
    student: nn.Module = timm.create_model("test_resnet", num_classes=CLASSES)
    teacher: nn.Module = timm.create_model("test_resnet", num_classes=CLASSES)
    return make_loss((term,), student, teacher, CLASSES, SIDE)


def outputs(device: torch.device, side: int = 2, grad: bool = False) -> Outputs:
    """What test_resnet gives, without running it."""
    shapes = ((32, 16 * side), (32, 8 * side), (48, 4 * side), (192, 2 * side), (96, side))
    maps = tuple(torch.rand(N, c, s, s, device=device, requires_grad=grad) for c, s in shapes)
    return Outputs(
        torch.rand(N, CLASSES, device=device, requires_grad=grad),
        maps,
        torch.rand(N, 96, device=device, requires_grad=grad),
    )


def labels(device: torch.device, mixed: bool) -> Labels:
    own = torch.zeros(N, dtype=torch.int64, device=device)
    return Labels(own, own + 1, torch.rand(N, device=device)) if mixed else Labels(own)


def test_the_shapes_here_are_those_of_the_network() -> None:
    net = Featured(timm.create_model("test_resnet", num_classes=CLASSES).eval(), maps=True)
    found, here = net(torch.zeros(N, 3, 64, 64)), outputs(torch.device("cpu"))
    assert [x.shape for x in (found.logits, found.pooled, *found.maps)] == [
        x.shape for x in (here.logits, here.pooled, *here.maps) if x is not None
    ]


def test_every_term_is_tried() -> None:
    assert tuple(term.name for term in TERMS) == config.LOSSES


@EACH
@MIXED
def test_a_loss_copies_nothing_and_waits_for_nothing(term: config.Loss, mixed: bool) -> None:
    loss = made(term)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        on_fake_cuda(mode, loss)
        s, t, given = outputs(CUDA), outputs(CUDA, side=4), labels(CUDA, mixed)
        with Log() as log:
            found = loss(s, t, given)
            loss(s, t, given)
        assert (found.device.type, found.shape) == ("cuda", ())
    assert not log.waits, log.waits
    assert not log.copies, log.copies


@EACH
def test_a_gradient_is_computed_without_a_value(term: config.Loss) -> None:
    meta = torch.device("meta")
    loss = made(term).to(meta)
    s = outputs(meta, grad=True)
    loss(s, outputs(meta, side=4), labels(meta, True)).backward()
    assert any(x.grad is not None for x in (s.logits, s.pooled, *s.maps) if x is not None)
    assert all(x.grad is not None for x in loss.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@EACH
@MIXED
def test_torch_itself_sees_no_wait(term: config.Loss, mixed: bool) -> None:
    loss = made(term).to(CUDA)
    before = torch.cuda.get_sync_debug_mode()
    s, t, given = outputs(CUDA, grad=True), outputs(CUDA, side=4), labels(CUDA, mixed)
    loss(s, t, given).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = loss(s, t, given)
        found.backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert found.isfinite()
