from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.engines.gradients import Call, check, image

MOVES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), (2, 8, 3, 5)),
    "pixel shuffle by three": (lambda x: F.pixel_shuffle(x, 3), (1, 9, 2, 3)),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (2, 3, 4, 6)),
    "roll": (lambda x: x.roll(2, 2), (2, 3, 5, 4)),
    "roll of two axes": (lambda x: x.roll((-1, 7), (2, -1)), (2, 3, 5, 4)),
    "roll of all": (lambda x: x.roll(5), (2, 3, 4)),
    "slice": (lambda x: x[:, 1:3, :, -2:], (2, 4, 3, 5)),
    "slice with steps": (lambda x: x[:, ::2, 1::3, 4::5], (2, 5, 8, 7)),
    "slice with a step that ends early": (lambda x: x[:, :, 1:6:2], (2, 3, 9)),
    "slice beyond the end": (lambda x: x[:, :, 2:99], (2, 3, 5)),
    "slice from before the beginning": (lambda x: x[:, :, -9:3], (2, 3, 5)),
    "select": (lambda x: x[:, 1] * x[:, -1], (2, 3, 4)),
    "select of the last axis": (lambda x: x.select(-1, -2), (2, 3, 4)),
    "class token": (lambda x: x[:, 0], (2, 5, 6)),
    "unbind": (lambda x: x.unbind(1)[0] * x.unbind(1)[2], (2, 3, 4)),
    "chunk": (lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), (2, 6, 3)),
    "split": (lambda x: torch.cat([a * (i + 1) for i, a in enumerate(x.split([1, 3, 2], 1))], 1), (2, 6, 3)),
    "cat": (lambda x: torch.cat([x, x * x], 1), (2, 3, 4)),
    "stack": (lambda x: torch.stack([x, -x], 1), (2, 3, 4)),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3)), (2, 3, 4, 5)),
    "crop": (lambda x: F.pad(x, (-1, 0, 1, -1)), (2, 3, 4, 5)),
    "windows": (lambda x: x.view(2, 2, 3, 2, 2, 5).permute(0, 1, 3, 2, 4, 5).reshape(-1, 6, 5), (2, 6, 4, 5)),
    "expand": (lambda x: x[:, :, None] * x[:, None], (2, 3, 4)),
    "flip": (lambda x: x.flip(2) * x, (2, 3, 4)),
    "in place": (lambda x: (x * 2).add_(1).mul_(x), (2, 3)),
    "fill": (lambda x: x * torch.zeros_like(x).fill_(2.5), (2, 3)),
}


@pytest.mark.parametrize("name", MOVES)
def test_move(name: str) -> None:
    f, shape = MOVES[name]
    module = Call(lambda x: f(x).reshape(len(x), -1))
    check(module, image(*shape))
