"""The moving average against torch's own, bit for bit, and against its formula."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from prism_fast.distillation import create_student
from prism_fast.distillation.average import Average

DECAY = 0.9


def moved(model: nn.Module) -> None:
    """What an optimiser and a forward pass in training do to a model."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(torch.randn_like(tensor) if tensor.is_floating_point() else 1)


def by_torch(model: nn.Module) -> AveragedModel:
    """The same average as torch's class computes it, with a warm-up."""

    def follow(averages: Any, currents: Any, averaged: Any) -> None:
        rate = min(DECAY, (1 + int(averaged)) / (10 + int(averaged)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, 1 - rate)
        else:
            torch._foreach_copy_(averages, currents)

    made = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    made.n_averaged.fill_(1)  # at zero it would copy the model
    return made


@pytest.mark.parametrize("student", ["test_resnet", "test_vit"])
def test_it_is_torchs_average_bit_for_bit(student: str) -> None:
    torch.manual_seed(0)
    model = create_student(student, 3)
    mine, theirs = Average(model, DECAY), by_torch(model)
    for step in range(1, 101):  # the warm-up ends at step 80
        moved(model)
        mine.update(step)
        theirs.update_parameters(model)
    found, wanted = mine.module.state_dict(), theirs.module.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)


def test_the_first_updates_by_hand() -> None:
    model = nn.BatchNorm1d(1)
    average = Average(model, 0.5)
    expected = 1.0
    for step in (1, 2, 9):
        moved(model)
        average.update(step)
        rate = min(0.5, (1 + step) / (10 + step))
        expected = rate * expected + (1 - rate) * float(model.weight.detach())
        assert float(average.module.get_parameter("weight").detach()) == pytest.approx(expected)
    counted = [int(module.get_buffer("num_batches_tracked")) for module in (average.module, model)]
    assert counted == [3, 3]


def test_without_averaging_it_follows_the_model() -> None:
    model = create_student("test_resnet", 3)
    average, before = Average(model, 0.0), copy.deepcopy(model.state_dict())
    moved(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in average.module.state_dict().items())
    average.update(1)
    after = average.module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in model.state_dict().items())
    assert (model.training, average.module.training) == (True, False)
