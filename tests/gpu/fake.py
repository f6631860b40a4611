"""Tensors on a CUDA device that needs no driver, and a log of what would make the host wait for it.

Under ``FakeTensorMode`` a tensor on ``cuda`` has a shape, a type and a device, and no values: reading one raises, and
so does an operator whose inputs lie on two devices.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from prism_fast.models.text import Embedding
from prism_fast.synthesis.synthesizer import Synthesizer

ROOT = Path(__file__).parents[2]
CUDA = torch.device("cuda")
OURS = tuple(str(ROOT / folder) for folder in ("prism_fast", "engines", "kernels"))
SYNCS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")


class Log(TorchDispatchMode):
    """Copies between devices as (way, whether they block, our line), and operators that wait, by their line."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.copies: Counter[tuple[str, bool, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, named = func.overloadpacket.__name__, kwargs or {}
        if name in SYNCS:
            self.waits[name, _line()] += 1
        out = func(*args, **named)
        if name in ("_to_copy", "copy_"):
            there = args[0] if name == "copy_" else out
            given = args[1] if name == "copy_" else args[0]
            if there.device.type != given.device.type:
                blocks = not (named.get("non_blocking") or (len(args) > 2 and args[2]))
                self.copies[f"{given.device.type} to {there.device.type}", blocks, _line()] += 1
        return out

    def count(self, way: str, blocking: bool) -> int:
        """Copies one way."""
        return sum(n for (kind, blocks, _), n in self.copies.items() if (kind, blocks) == (way, blocking))


def _line() -> str:
    """The innermost line of ours on the stack."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if frame.f_code.co_filename.startswith(OURS):
            return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def on_fake_cuda(mode: FakeTensorMode, module: nn.Module, device: torch.device = CUDA) -> None:
    """Replace every parameter and buffer by a tensor of the mode: ``Module.to`` cannot."""
    made: dict[int, torch.Tensor] = {}
    for one in module.modules():
        for store in (one._parameters, one._buffers):
            for name, value in list(store.items()):
                if value is None:
                    continue
                if id(value) not in made:
                    with mode:
                        fake = torch.empty(value.shape, dtype=value.dtype, device=device)
                    is_weight = isinstance(value, nn.Parameter)
                    made[id(value)] = nn.Parameter(fake, requires_grad=False) if is_weight else fake
                store[name] = made[id(value)]  # type: ignore[assignment]


class NoGradient:
    """In place of the energy gradient: autograd does not work on fake CUDA tensors."""

    name = "energy_gradient"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Energy, gradient and logits of these shapes."""
        z, labels, boxes = inputs
        assert z.device == labels.device == boxes.device
        return z.new_zeros(len(z)), torch.zeros_like(z), z.new_zeros(len(z), self.classes)


@contextmanager
def fake_cuda(run: Synthesizer) -> Iterator[None]:
    """Meanwhile the run's networks and the prompts that it remembers lie on a fake CUDA device, its tensors will."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for field in fields(run.engines):
            engine: Any = getattr(run.engines, field.name)
            engine = getattr(engine, "engine", engine)  # of one that is given its rows in chunks
            if isinstance(getattr(engine, "module", None), nn.Module):
                on_fake_cuda(mode, engine.module)
        run._embeddings = {prompt: _embedding(kept) for prompt, kept in run._embeddings.items()}
        run._time_ids = torch.empty(run._time_ids.shape, device=CUDA)
        run.device = CUDA
        yield


def _embedding(kept: Embedding) -> Embedding:
    return Embedding(*(torch.empty(x.shape, dtype=x.dtype, device=CUDA) for x in kept.tensors()))
