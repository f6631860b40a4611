"""The plain distillation loop keeps everything on the GPU and waits for nothing: seen on a device that is faked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import plain_distill
from benchmarks.split import Split
from prism_fast.config import DistillConfig
from prism_fast.distillation import create_student
from prism_fast.models.classifier import Classifier, ClassifierConfig
from tests.gpu.fake import Log, on_fake_cuda

SIDE, ROWS, CLASSES = 32, 4, 3


class NoTime:
    """Marks without a device."""

    def mark(self) -> float:
        return 0.0

    def seconds(self, earlier: float, later: float) -> float:
        return 0.0


def batches() -> Iterator[list[torch.Tensor]]:
    """On the host, as the workers hand them out."""
    while True:
        yield [torch.zeros(ROWS, 3, SIDE, SIDE), torch.zeros(ROWS, dtype=torch.int64)]


def networks() -> tuple[nn.Module, plain_distill.Teacher]:
    described = ClassifierConfig(
        architecture="test_resnet", num_classes=CLASSES, image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    teacher = plain_distill.Teacher(Classifier(create_student("test_resnet", CLASSES), described))
    return create_student("test_resnet", CLASSES).train(), teacher.eval()


def test_a_plain_loop_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies a batch to the GPU, none of which blocks. Autograd does not work there: gradients are zeros."""
    student, teacher = networks()
    recipe = DistillConfig(student="test_resnet", image_size=SIDE, batch_size=ROWS, steps=3)

    def backward(loss: torch.Tensor) -> None:
        for parameter in student.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in (student, teacher):
            on_fake_cuda(mode, module)
        student.requires_grad_()
        split = Split(NoTime(), 1)
        split.watch(teacher)
        with Log() as log:
            losses = plain_distill.train(
                student, plain_distill.plain(student, teacher, recipe), batches(), recipe, split
            )
    assert (losses.device.type, losses.shape, split.images) == ("cuda", (3,), 3 * ROWS)
    assert split.targets is not None
    assert (split.targets.device.type, split.targets.shape) == ("cuda", (ROWS, CLASSES))
    assert not log.waits
    assert (log.count("cpu to cuda", False), log.count("cpu to cuda", True)) == (6, 0)
    assert log.count("cuda to cpu", True) == 0
