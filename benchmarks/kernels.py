"""Operators of the guided step: the plain torch reference (unfused), the same under `torch.compile`, and Triton where
the device is a GPU. `gb_per_s` counts every input and result once; first calls, compilation included, are apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from prism_kernels import (
    LinearUpdate,
    counter_noise,
    energy,
    group_norm_silu,
    guided_combine,
    guided_step,
    use_backend,
    view,
)

from benchmarks import harness
from benchmarks.options import Options
from prism_fast.config import RunConfig

COLUMNS = ("op", "shape", "variant", "microseconds", "gb_per_s", "ratio_to_eager", "first_s")
Call = Callable[..., Any]


def _cases(device: str) -> list[tuple[str, Call, tuple[torch.Tensor, ...]]]:
    def latents(n: int) -> torch.Tensor:
        return torch.randn(n, 4, 64, 64, device=device)

    def combine(z: torch.Tensor, prediction: torch.Tensor) -> Any:
        return guided_combine(z, prediction, 5.0, 0.8, 0.6, "epsilon")

    def step(x: torch.Tensor, g: torch.Tensor, z: torch.Tensor, old: torch.Tensor, rms: torch.Tensor) -> Any:
        return guided_step(x, g, rms, rms > 0, 0.5, 1e4, LinearUpdate(z, (0.7, 0.4, -0.1), old))

    def value(logits: torch.Tensor, labels: torch.Tensor) -> Any:
        return energy(logits, labels, -1.0, 1.0, 1.0)

    def seen(images: torch.Tensor, boxes: torch.Tensor) -> Any:
        return view(images, boxes, 128, scale, scale)

    def norm(x: torch.Tensor, weight: torch.Tensor) -> Any:
        return group_norm_silu(x, weight, weight, 32)

    def noise(indices: torch.Tensor) -> Any:
        return counter_noise(1, indices, 3, (4, 64, 64))

    scale = torch.ones(3, device=device)
    boxes = torch.tensor([[4.0, 56.0, 2.0, 60.0, 1.0]], device=device).expand(16, 5).contiguous()
    classes = [(64, 1000), (16, 21843)]
    return [
        *(
            ("energy", value, (torch.randn(n, k, device=device), torch.randint(k, (n,), device=device)))
            for n, k in classes
        ),
        ("guided_combine", combine, (latents(16), latents(32))),
        ("guided_step", step, (*(latents(16) for _ in range(4)), torch.rand(16, device=device))),
        ("view", seen, (torch.rand(16, 3, 64, 64, device=device), boxes)),
        ("group_norm_silu", norm, (torch.randn(1, 512, 64, 64, device=device), torch.rand(512, device=device))),
        ("counter_noise", noise, (torch.arange(16, device=device),)),
    ]


def _tensors(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [t for t in value if isinstance(t, torch.Tensor)]


def bench(config: RunConfig, options: Options) -> list[harness.Row]:
    """A row an operator, shape and implementation."""
    rows = []
    for op, call, inputs in _cases(options.device):
        if options.only and op not in options.only:
            continue
        moved = sum(t.numel() * t.element_size() for t in [*inputs, *_tensors(call(*inputs))])
        eager: float | None = None
        for variant, run in _variants(call, options.device):
            timing = harness.measure(partial(_many, run, inputs), 5 * options.repeats, options.device)
            seconds = timing.p50 / _CALLS
            eager = eager or seconds
            rows.append(
                {
                    "op": op,
                    "shape": "x".join(map(str, inputs[0].shape)),
                    "variant": variant,
                    "microseconds": 1e6 * seconds,
                    "gb_per_s": moved / seconds / 1e9,
                    "ratio_to_eager": eager / seconds,
                    "first_s": timing.first_s,
                }
            )
    return rows


_CALLS = 20


def _many(run: Call, inputs: tuple[torch.Tensor, ...]) -> None:
    for _ in range(_CALLS):
        run(*inputs)


def _variants(call: Call, device: str) -> list[tuple[str, Call]]:
    def under(backend: str, function: Call) -> Call:
        def run(*inputs: torch.Tensor) -> Any:
            with torch.no_grad(), use_backend(backend):  # type: ignore[arg-type]
                return function(*inputs)

        return run

    torch.compiler.reset()
    found = [("eager", under("reference", call)), ("compiled", under("reference", torch.compile(call, fullgraph=True)))]
    return [*found, ("triton", under("triton", call))] if device.startswith("cuda") else found
