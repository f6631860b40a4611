"""A kernel starts on the GPU of its tensors, whichever GPU its thread works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton", reason="triton is not installed")


def test_a_kernel_starts_on_its_tensors_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from prism_kernels._triton._run import run

    current: list[torch.device] = []
    started: list[tuple[torch.device, tuple[int, ...], dict[str, Any]]] = []

    @contextmanager
    def device(one: torch.device) -> Iterator[None]:
        current.append(one)
        yield
        current.pop()

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda **arguments: started.append((current[-1], grid, arguments))

    monkeypatch.setattr(torch.cuda, "device", device)
    with FakeTensorMode():
        x = torch.empty(4, device="cuda:1")
        run(Kernel(), (3,), 4, n=4, x=x)
    ((where, grid, arguments),) = started
    assert (where, grid, current) == (torch.device("cuda:1"), (3,), [])
    assert arguments["num_warps"] == 4
    assert arguments["x"] is x


@pytest.mark.gpu
def test_a_second_gpu_computes_what_the_first_does() -> None:
    from prism_kernels import energy

    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    logits, labels = torch.randn(8, 100), torch.arange(8)
    one, other = (energy(logits.to(d), labels.to(d), -1.0, 1.0, 1.0) for d in ("cuda:0", "cuda:1"))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.cpu(), b.cpu())
