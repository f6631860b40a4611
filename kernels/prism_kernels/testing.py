"""For tests and benchmarks of the operators: realistic examples, and one comparison with one table of tolerances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from prism_kernels._registry import OPS


@dataclass(frozen=True)
class Example:
    """One operator on real shapes; ``launch`` starts its kernel and returns the results."""

    op: str
    shape: str
    dtype: str
    inputs: tuple[torch.Tensor | None, ...]
    launch: Callable[[], tuple[torch.Tensor, ...]]


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


def examples(dtype: torch.dtype, device: str = "cpu") -> Iterator[Example]:
    """Every operator at the shapes it meets: ImageNet logits, and latents of Stable Diffusion 1.5."""
    yield _energy(16, 1000, dtype, device)
    # ImageNet-21k has 21,841 or 21,843 classes: odd rows cannot be read 128 bits at a time, rows padded to 21,848 can.
    yield _energy(1, 21848, dtype, device)
    yield _guided_combine((2, 4, 64, 64), dtype, device)
    yield _guided_step((2, 4, 64, 64), dtype, device, history=False)
    yield _guided_step((2, 4, 64, 64), dtype, device, history=True)


def _energy(n: int, k: int, dtype: torch.dtype, device: str) -> Example:
    from prism_kernels._triton.energy import launch

    logits = torch.randn(n, k, device=device).to(dtype)
    labels = torch.arange(n, device=device)
    return _example("energy", "", logits, (logits, labels), lambda: launch(logits, labels, -1.0, 1.0, 1.5))


def _guided_combine(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Example:
    from prism_kernels._triton.guided_combine import launch

    latents = torch.randn(shape, device=device).to(dtype)
    prediction = torch.randn(2 * shape[0], *shape[1:], device=device).to(dtype)
    inputs = (latents, prediction)
    return _example("guided_combine", "", latents, inputs, lambda: launch(latents, prediction, 5.0, 1.25, -0.75))


def _guided_step(shape: tuple[int, ...], dtype: torch.dtype, device: str, history: bool) -> Example:
    from prism_kernels._triton.guided_step import launch

    denoised, gradient, latents, old = (torch.randn(shape, device=device).to(dtype) for _ in range(4))
    correction = torch.rand(shape[0], device=device)
    active = torch.ones(shape[0], dtype=torch.bool, device=device)
    previous = old if history else None
    inputs = (denoised, gradient, correction, active, latents, previous)
    return _example(
        "guided_step",
        " 2M" if history else " DDIM",
        denoised,
        inputs,
        lambda: launch(denoised, gradient, correction, active, 0.3, 1e4, latents, previous, (0.75, 0.5, -0.25)),
    )


def _example(
    op: str,
    variant: str,
    like: torch.Tensor,
    inputs: tuple[torch.Tensor | None, ...],
    launch: Callable[[], tuple[torch.Tensor, ...]],
) -> Example:
    shape = "x".join(map(str, like.shape)) + variant
    return Example(op, shape, str(like.dtype).removeprefix("torch."), inputs, launch)
