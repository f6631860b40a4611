"""The moving average of a student's weights: two calls over all tensors, and nothing that waits for the device.

``torch.optim.swa_utils.AveragedModel`` keeps the number of its updates in a tensor and gives it to the averaging
function on the weights' device: a copy there and a wait for it, twice a step.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """``average <- d * average + (1 - d) * model`` at each update, ``d = min(decay, (1 + step) / (10 + step))``.

    Buffers are averaged as well, integer ones copied. The warm-up of d is that of TensorFlow's
    ExponentialMovingAverage.

    Args:
        model: what is averaged; the average begins as a copy of it.
        decay: 0 turns the average off: it follows the model.

    Attributes:
        module: the average, in eval mode.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.module = copy.deepcopy(model).eval()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after its ``step``-th update, counted from 1."""
        rate = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        averages, currents = _floating(self.module), _floating(self.model)
        if rate:
            torch._foreach_lerp_(averages[True], currents[True], 1 - rate)
        else:
            torch._foreach_copy_(averages[True], currents[True])
        if averages[False]:
            torch._foreach_copy_(averages[False], currents[False])


def _floating(module: nn.Module) -> dict[bool, list[Tensor]]:
    """Parameters and buffers, those that are floating point and those that are not."""
    found: dict[bool, list[Tensor]] = {True: [], False: []}
    for tensor in (*module.parameters(), *module.buffers()):
        found[tensor.is_floating_point()].append(tensor)
    return found
