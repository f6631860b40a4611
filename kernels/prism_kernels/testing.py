"""For tests and benchmarks of the operators: realistic examples, and one comparison with one table of tolerances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from prism_kernels._registry import OPS


@dataclass(frozen=True)
class Example:
    """One operator on real shapes; ``launch`` starts its kernel and returns the results.

    ``bytes_bar`` is how many times the least bytes it may move. It is above 1.1 only where the operator needs a
    result of the whole input before it can write, and the input does not fit a program's registers.
    """

    op: str
    shape: str
    dtype: str
    inputs: tuple[torch.Tensor | None, ...]
    launch: Callable[[], tuple[torch.Tensor, ...]]
    bytes_bar: float = 1.1


def assert_close(
    op: str, got: torch.Tensor, oracle: torch.Tensor, reduction: int = 1, scale: float | None = None
) -> None:
    """Compare with a float64 oracle: relative tolerance of the operator's table, absolute one that times ``scale``.

    ``scale`` is the magnitude of the terms that were added, by default the oracle's largest: a difference of two large
    numbers cannot be better than they are.
    """
    if oracle.dtype != torch.float64 or got.shape != oracle.shape:
        raise AssertionError(f"{op}: got {tuple(got.shape)} for an oracle {tuple(oracle.shape)} {oracle.dtype}")
    if not got.numel():
        return
    tolerance = OPS[op].tolerance_for(got.dtype, reduction)
    largest = float(oracle.abs().max()) if scale is None else scale
    absolute = OPS[op].tolerance_for(torch.float32, reduction) * largest
    torch.testing.assert_close(got.double(), oracle, rtol=tolerance, atol=absolute)


def examples(dtype: torch.dtype, device: str = "cpu", large: bool = True) -> Iterator[Example]:
    """Every operator at the shapes it meets: ImageNet logits, latents, images and decoder of Stable Diffusion 1.5.

    ``large``: images of 512 pixels too, which take the interpreter 20 s.
    """
    yield _energy(16, 1000, dtype, device)
    # ImageNet-21k has 21,841 or 21,843 classes: odd rows cannot be read 128 bits at a time, rows padded to 21,848 can.
    yield _energy(1, 21848, dtype, device)
    yield _counter_noise((2, 4, 64, 64), dtype, device)
    yield _guided_combine((2, 4, 64, 64), dtype, device)
    yield _guided_step((2, 4, 64, 64), dtype, device, history=False)
    yield _guided_step((2, 4, 64, 64), dtype, device, history=True)
    yield _guided_step((2, 4, 64, 64), dtype, device, history=False, noise=True)
    # The bundled models, and Stable Diffusion 1.5 for a teacher at 224. Channels are worked on alike: one is enough.
    for size_in, size_out in ((64, 128), (512, 224)) if large else ((64, 128),):
        yield _view(size_in, size_out, dtype, device)
        yield _view_adjoint(size_in, size_out, dtype, device)
    yield from _group_norms(dtype, device, large)


def _group_norms(dtype: torch.dtype, device: str, large: bool) -> Iterator[Example]:
    """Groups that fit a tile; and some of the 32 of the first and the last layer of Stable Diffusion's decoder."""
    rows, last = torch.contiguous_format, torch.channels_last
    shapes = [(rows, 128, 16, 8), (last, 128, 16, 8)]
    if large:
        # Channels last takes 32 channels together: 8 groups of the last layer, and a quarter of its pixels.
        shapes += [(rows, 64, 64, 4), (last, 64, 64, 4), (rows, 4, 512, 1), (last, 32, 256, 8)]
    for order, channels, side, groups in shapes:
        x = torch.randn(1, channels, side, side, device=device).to(dtype, memory_format=order)
        yield _group_norm_silu(x, groups)
        yield _group_norm_silu_backward(x, groups)


def _group_norm(x: torch.Tensor, groups: int, readings: float) -> tuple[torch.Tensor, torch.Tensor, str, float]:
    """Weight and bias, the order in words, and the bar: of groups beyond a tile, all bytes but the result's twice."""
    from prism_kernels._triton.group_norm_silu import plan

    weight, bias = (torch.randn(x.shape[1], device=x.device).to(x.dtype) for _ in range(2))
    bar = 1.1 if plan(x, groups).whole else 1.1 * readings
    return weight, bias, f" {groups} groups {'NCHW' if x.is_contiguous() else 'NHWC'}", bar


def _group_norm_silu(x: torch.Tensor, groups: int) -> Example:
    from prism_kernels._triton.group_norm_silu import launch

    weight, bias, words, bar = _group_norm(x, groups, 3 / 2)
    inputs = (x, weight, bias)
    return _example("group_norm_silu", words, x, inputs, partial(launch, *inputs, groups, 1e-6), bar)


def _group_norm_silu_backward(x: torch.Tensor, groups: int) -> Example:
    from prism_kernels._triton.group_norm_silu import launch_backward

    weight, bias, words, bar = _group_norm(x, groups, 5 / 3)
    means, rstds = (torch.rand(1, groups, device=x.device) + 0.5 for _ in range(2))
    inputs = (torch.randn_like(x), x, weight, bias, means, rstds)
    return _example("group_norm_silu", f"{words} backward", x, inputs, partial(launch_backward, *inputs, groups), bar)


def _box(size: int, device: str) -> torch.Tensor:
    """The whole image, mirrored: smaller boxes read less of it."""
    return torch.tensor([[0.0, size, 0.0, size, 1.0]], device=device)


def _view(size_in: int, size_out: int, dtype: torch.dtype, device: str) -> Example:
    from prism_kernels._triton.view import launch

    image, box, one = torch.randn(1, 1, size_in, size_in).to(device, dtype), _box(size_in, device), _one(device)
    inputs = (image, box, one, one)
    return _example("view", f" to {size_out}", image, inputs, partial(launch, image, box, size_out, one, one))


def _view_adjoint(size_in: int, size_out: int, dtype: torch.dtype, device: str) -> Example:
    from prism_kernels._triton.view import launch_adjoint

    gradient, box, one = torch.randn(1, 1, size_out, size_out).to(device, dtype), _box(size_in, device), _one(device)
    back = partial(launch_adjoint, gradient, box, size_in, size_in, one)
    return _example("view", f" back to {size_in}", gradient, (gradient, box, one), back)


def _one(device: str) -> torch.Tensor:
    return torch.ones(1, device=device)


def _counter_noise(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Example:
    from prism_kernels._triton.counter_noise import launch

    indices, like = torch.arange(shape[0], device=device), torch.empty(shape, dtype=dtype, device=device)
    return _example("counter_noise", "", like, (indices,), partial(launch, 7, indices, 3, like[0].numel(), dtype))


def _energy(n: int, k: int, dtype: torch.dtype, device: str) -> Example:
    from prism_kernels._triton.energy import launch

    logits = torch.randn(n, k, device=device).to(dtype)
    labels = torch.arange(n, device=device)
    return _example("energy", "", logits, (logits, labels), partial(launch, logits, labels, -1.0, 1.0, 1.5))


def _guided_combine(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Example:
    from prism_kernels._triton.guided_combine import launch

    latents = torch.randn(shape, device=device).to(dtype)
    prediction = torch.randn(2 * shape[0], *shape[1:], device=device).to(dtype)
    inputs = (latents, prediction)
    return _example("guided_combine", "", latents, inputs, partial(launch, *inputs, 5.0, 1.25, -0.75))


def _guided_step(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, history: bool, noise: bool = False
) -> Example:
    from prism_kernels._triton.guided_step import launch

    denoised, gradient, latents, old = (torch.randn(shape, device=device).to(dtype) for _ in range(4))
    correction = torch.rand(shape[0], device=device)
    active = torch.ones(shape[0], dtype=torch.bool, device=device)
    previous = old if history else None
    indices = torch.arange(shape[0], device=device) if noise else None
    inputs = (denoised, gradient, correction, active, latents, previous, indices)
    step, weights = (denoised, gradient, correction, active, 0.3, 1e4), (0.75, 0.5, -0.25)
    return _example(
        "guided_step",
        " 2M" if history else " ancestral" if noise else " DDIM",
        denoised,
        inputs,
        partial(launch, *step, latents, previous, weights, indices, 7, 3, 0.2),
    )


def _example(
    op: str,
    variant: str,
    like: torch.Tensor,
    inputs: tuple[torch.Tensor | None, ...],
    launch: Callable[[], torch.Tensor | tuple[torch.Tensor, ...]],
    bytes_bar: float = 1.1,
) -> Example:
    def start() -> tuple[torch.Tensor, ...]:
        results = launch()
        return (results,) if isinstance(results, torch.Tensor) else results

    shape = "x".join(map(str, like.shape)) + variant
    return Example(op, shape, str(like.dtype).removeprefix("torch."), inputs, start, bytes_bar)
