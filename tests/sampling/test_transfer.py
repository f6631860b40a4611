"""Packing keeps every bit, and on the host nothing is copied."""

from __future__ import annotations

import torch

from prism_fast.sampling.transfer import ALIGNMENT, pack, to_device, to_host, unpack

CPU = torch.device("cpu")


def tensors() -> list[torch.Tensor]:
    return [
        torch.tensor([1.5, float("nan"), -0.0]),
        torch.arange(7),
        torch.tensor([True, False]),
        torch.arange(24, dtype=torch.uint8).view(2, 3, 4).transpose(1, 2),
        torch.zeros(0, 5),
        torch.tensor([[1.0]], dtype=torch.bfloat16),
        torch.tensor(3),
    ]


def test_what_is_packed_is_unpacked() -> None:
    given = tensors()
    packed = pack(given)
    assert (packed.dtype, packed.dim(), len(packed) % ALIGNMENT) == (torch.uint8, 1, 0)
    for a, b in zip(unpack(packed, given), given, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_every_tensor_is_aligned() -> None:
    packed = pack(tensors())
    for one in unpack(packed, tensors()):
        assert (one.data_ptr() - packed.data_ptr()) % ALIGNMENT == 0 or not one.numel()


def test_on_the_host_nothing_moves() -> None:
    given = tensors()
    assert all(a is b for a, b in zip(to_device(given, CPU), given, strict=True))
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(to_host(given), given, strict=True))
