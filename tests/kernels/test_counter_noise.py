"""Counter-based noise: the published bits, the same numbers from plain torch and kernel, and their statistics."""

from __future__ import annotations

import math

import prism_kernels
import pytest
import torch
import triton
import triton.language as tl
from prism_kernels import KernelInputError, LinearUpdate, UpdateNoise, _reference, counter_noise, guided_step
from prism_kernels._triton import _run
from prism_kernels._triton.counter_noise import philox, words
from prism_kernels.testing import assert_close
from torch import Tensor

from tests.kernels.cases import DTYPES, random

INDICES = torch.tensor([0, 1, 5, 2**32 + 5, 2**62])
# Known answers that come with Random123: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@triton.jit  # type: ignore[untyped-decorator]
def _bits_kernel(
    out: tl.tensor,
    seed_low: tl.tensor,
    seed_high: tl.tensor,
    word: tl.tensor,
    index: tl.tensor,
    start: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    block = start + tl.arange(0, BLOCK)
    a, b, c, d = philox(seed_low, seed_high, word, index.to(tl.int64), block)
    place = out + tl.arange(0, BLOCK) * 4
    tl.store(place, a.to(tl.int64))
    tl.store(place + 1, b.to(tl.int64))
    tl.store(place + 2, c.to(tl.int64))
    tl.store(place + 3, d.to(tl.int64))


def _kernel_bits(seed: int, index: int, word: int, start: int, blocks: int) -> Tensor:
    out = torch.zeros(blocks, 4, dtype=torch.int64)
    _run.run(_bits_kernel, (1,), 1, out=out, **words(seed, word), index=index, start=start, BLOCK=blocks)
    return out


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_bits_are_the_published_ones(counter: tuple[int, ...], key: int, result: tuple[int, ...]) -> None:
    index = counter[2] + (counter[3] << 32)
    index -= 2**64 if index >= 2**63 else 0
    start = counter[0] - 2**32 if counter[0] >= 2**31 else counter[0]
    assert tuple(_kernel_bits(key, index, counter[1], start, 1)[0].tolist()) == result
    if counter[0] == 0:
        assert tuple(_reference.philox(key, torch.tensor([index]), counter[1], 1)[0, 0].tolist()) == result


@pytest.mark.parametrize("index", INDICES.tolist())
def test_bits_of_kernel_and_reference_are_equal(index: int) -> None:
    expected = _reference.philox(2**63 + 12345, torch.tensor([index]), 7 + (2 << 24), 64)[0]
    assert torch.equal(_kernel_bits(2**63 + 12345, index, 7 + (2 << 24), 0, 64), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1,), (3,), (4, 5, 7), (2, 3000), (0, 3)], ids=str)
def test_kernel_draws_the_references_numbers(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And both draw Box–Muller's, in float64, of the same bits."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    count = math.prod(shape)
    bits = _reference.philox(9, INDICES, 3, -(-count // 4)).view(len(INDICES), -1, 2) >> 8
    radius = (-2 * ((bits[..., 0] + 1).double() / 2**24).log()).sqrt()
    angle = bits[..., 1].double() * (2 * math.pi / 2**24)
    exact = torch.stack([radius * angle.cos(), radius * angle.sin()], 2).flatten(1)[:, :count]
    for backend in ("reference", "triton"):
        with prism_kernels.use_backend(backend):
            got = counter_noise(9, INDICES, 3, shape, dtype=dtype)
        assert got.shape == (len(INDICES), *shape)
        assert got.dtype == dtype
        assert_close("counter_noise", got, exact.view(got.shape), scale=1.0)


def test_a_sample_does_not_depend_on_its_batch(either: str) -> None:
    together = counter_noise(4, INDICES, 2, (4, 9, 9))
    for k in range(len(INDICES)):
        assert torch.equal(counter_noise(4, INDICES[k : k + 1], 2, (4, 9, 9))[0], together[k])
    assert torch.equal(counter_noise(4, INDICES.flip(0)[::2], 2, (4, 9, 9)), together.flip(0)[::2])
    assert counter_noise(4, INDICES[:0], 2, (4, 9, 9)).shape == (0, 4, 9, 9)


def test_a_longer_sample_begins_with_the_shorter_one() -> None:
    assert torch.equal(counter_noise(4, INDICES, 2, (100,))[:, :37], counter_noise(4, INDICES, 2, (37,)))


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"seed": 2**32}, {"step": 1}, {"stream": 1}, {"indices": torch.tensor([2**32])}]
)
def test_every_part_of_the_counter_matters(changed: dict[str, int]) -> None:
    given = {"seed": 0, "indices": torch.tensor([0]), "step": 0, "stream": 0}
    first, second = (counter_noise(**k, shape=(5000,))[0] for k in (given, given | changed))  # type: ignore[arg-type]
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 5 / 5000**0.5


def test_statistics() -> None:
    """Moments of a million numbers within five standard errors; no correlation between indices, steps, neighbours."""
    n, indices = 2**20, torch.arange(16)
    x = torch.stack([counter_noise(123, indices, step, (2**13,)) for step in range(8)]).double()
    flat = x.flatten()
    assert abs(float(flat.mean())) < 5 / n**0.5
    assert abs(float(flat.var()) - 1) < 5 * (2 / n) ** 0.5
    assert abs(float(flat.pow(3).mean())) < 5 * (15 / n) ** 0.5
    assert abs(float(flat.pow(4).mean()) - 3) < 5 * (96 / n) ** 0.5
    rows = torch.corrcoef(x.flatten(0, 1))
    assert float((rows - torch.eye(128)).abs().max()) < 6 / (2**13) ** 0.5
    for lag in (1, 2, 3, 4):
        assert abs(float((x[..., lag:] * x[..., :-lag]).mean())) < 5 / n**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 4, 13, 11), (0, 4, 8, 8), (1, 4, 65, 65)], ids=str)
def test_guided_step_adds_the_same_noise(shape: tuple[int, ...], dtype: torch.dtype, either: str) -> None:
    denoised, gradient, latents, previous = (random(*shape, dtype=dtype, seed=s) for s in range(4))
    indices = torch.arange(shape[0]) + 2**33
    noise = UpdateNoise(2**64 - 5, indices, 6, 0.7, stream=2)
    update = LinearUpdate(latents, (0.9, 0.4, -0.2), previous, noise)
    got = guided_step(
        denoised, gradient, torch.full(shape[:1], 0.5), torch.ones(shape[0], dtype=torch.bool), 0.3, update=update
    )
    assert got.latents is not None
    drawn = counter_noise(2**64 - 5, indices, 6, shape[1:], stream=2)
    expected = 0.9 * latents.double() + 0.4 * got.denoised.double() - 0.2 * previous.double() + 0.7 * drawn.double()
    assert_close("guided_step", got.latents, expected, scale=5.0)


def test_bad_input() -> None:
    for indices in (torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2)):
        with pytest.raises(KernelInputError, match="expected \\(n,\\) int64"):
            counter_noise(0, indices, 0, (3,))
    for bad in ({"seed": -1}, {"seed": 2**64}, {"step": 2**24}, {"stream": 256}):
        given = {"seed": 0, "step": 0, "stream": 0} | bad
        with pytest.raises(KernelInputError, match=f"{next(iter(bad))} {next(iter(bad.values()))}"):
            counter_noise(given["seed"], INDICES, given["step"], (3,), given["stream"])
    with pytest.raises(KernelInputError, match="float64"):
        counter_noise(0, INDICES, 0, (3,), dtype=torch.float64)
    x, flags = random(2, 4, 3, 3), torch.ones(2, dtype=torch.bool)
    update = LinearUpdate(x, (1.0, 1.0, 0.0), noise=UpdateNoise(0, INDICES, 0, 1.0))
    with pytest.raises(KernelInputError, match=r"noise indices \(5,\)"):
        guided_step(x, x, torch.ones(2), flags, 0.3, update=update)
