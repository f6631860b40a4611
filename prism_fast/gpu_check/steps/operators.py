"""An operator by Triton on every GPU, against plain torch on the CPU, in each of its types."""

from __future__ import annotations

from collections.abc import Callable

import prism_kernels
import torch
from prism_kernels import LinearUpdate, UpdateNoise, use_backend
from prism_kernels._registry import OPS
from torch import Tensor

from prism_fast.gpu_check.finding import Finding, Options, failed, passed, skipped


class Inputs:
    """The same numbers for every device, made on the CPU."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers of the operator's type."""
        return torch.randn(*shape, generator=self._generator).to(self.device, self.dtype)

    def indices(self, n: int) -> Tensor:
        """0 to n - 1."""
        return torch.arange(n, device=self.device)

    def boxes(self, n: int, side: int) -> Tensor:
        """Views inside of a picture, every second one flipped."""
        rows = [[i % 3, side - 3.0 - i % 2, 1.5, side - 4.0, float(i % 2)] for i in range(n)]
        return torch.tensor(rows, device=self.device)


def _counter_noise(of: Inputs) -> tuple[Tensor, ...]:
    return (prism_kernels.counter_noise(7, of.indices(2), 3, (4, 13, 17), dtype=of.dtype),)


def _energy(of: Inputs) -> tuple[Tensor, ...]:
    few = prism_kernels.energy(of.normal(13, 101), of.indices(13), -0.7, 1.3, 1.7)
    return *few, *prism_kernels.energy(of.normal(2, 21841), of.indices(2), -1.0, 1.0, 1.0)


def _guided_combine(of: Inputs) -> tuple[Tensor, ...]:
    return tuple(
        prism_kernels.guided_combine(of.normal(3, 4, 13, 17), of.normal(6, 4, 13, 17), 5.0, 0.8, 0.6, "epsilon")
    )


def _guided_step(of: Inputs) -> tuple[Tensor, ...]:
    n, shape = 3, (3, 4, 13, 17)
    correction, active = torch.tensor([0.5, 1.0, 2.0], device=of.device), of.indices(n) != 1
    denoised, gradient, latents, previous = (of.normal(*shape) for _ in range(4))
    noise = UpdateNoise(7, of.indices(n), 3, 0.2)
    updates = (
        LinearUpdate(latents, (0.75, 0.5, -0.25), previous),
        LinearUpdate(latents, (0.75, 0.5, 0.0), None, noise),
    )
    made = [prism_kernels.guided_step(denoised, gradient, correction, active, 0.3, 1e4, update) for update in updates]
    return tuple(x for one in made for x in one if x is not None)


def _group_norm_silu(of: Inputs) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    for order in (torch.contiguous_format, torch.channels_last):
        # Groups that a program holds whole, and groups that it reads twice.
        for channels, side in ((32, 16), (8, 96)):
            x = of.normal(1, channels, side, side).contiguous(memory_format=order).requires_grad_()
            out = prism_kernels.group_norm_silu(x, of.normal(channels), of.normal(channels), 4)
            (back,) = torch.autograd.grad(out, x, of.normal(1, channels, side, side))
            found += [out.detach(), back]
    return tuple(found)


def _view(of: Inputs) -> tuple[Tensor, ...]:
    images, scale, shift = of.normal(4, 3, 32, 32).requires_grad_(), (2.0, 3.0, 4.0), (0.1, 0.2, 0.3)
    found: list[Tensor] = []
    for size in (24, 48):
        seen = prism_kernels.view(images, of.boxes(4, 32), size, scale, shift)
        (back,) = torch.autograd.grad(seen, images, of.normal(4, 3, size, size))
        found += [seen.detach(), back]
    return tuple(found)


#: What runs an operator, and how many terms one of its results may be said to sum: what float32 loses grows with the
#: root. Of longer sums a program adds many lanes, which loses less.
CASES: dict[str, tuple[Callable[[Inputs], tuple[Tensor, ...]], int]] = {
    "counter_noise": (_counter_noise, 16),
    "energy": (_energy, 64),
    "group_norm_silu": (_group_norm_silu, 2 * 96 * 96),
    "guided_combine": (_guided_combine, 64),
    "guided_step": (_guided_step, 64),
    "view": (_view, 32 * 32),
}


def check(options: Options) -> Finding:
    """The operator ``options.case`` on the device and, if that is a GPU, on every other one."""
    worst = 0.0
    devices = _devices(options)
    for device in devices:
        if reasons := prism_kernels.reasons(options.case, torch.empty(0, device=device)):
            return skipped(reasons)
        for dtype in OPS[options.case].dtypes:
            share = _share_of_tolerance(options.case, device, dtype)
            if not share <= 1:
                name = str(dtype).removeprefix("torch.")
                return failed(f"{options.case} in {name} on {device} is {share:.3g} times its tolerance from torch's")
            worst = max(worst, share)
    where = ", ".join(map(str, devices))
    return passed(f"three types on {where}; at most {worst:.2g} of the tolerance from torch's")


def _devices(options: Options) -> list[torch.device]:
    """The device of the check first, then the other GPUs."""
    own = torch.device(options.device)
    others = [torch.device("cuda", number) for number in range(torch.cuda.device_count())] if options.cuda else []
    return [own, *(device for device in others if device.index != (own.index or 0))]


def _share_of_tolerance(op: str, device: torch.device, dtype: torch.dtype) -> float:
    """The largest difference between Triton and plain torch, as a share of what both may be off together."""
    compute, terms = CASES[op]
    with use_backend("reference"):
        wanted = compute(Inputs(torch.device("cpu"), dtype))
    with use_backend("triton"):
        got = [x.cpu() for x in compute(Inputs(device, dtype))]
    return max(_share(op, a, b, terms) for a, b in zip(got, wanted, strict=True))


def _share(op: str, got: Tensor, wanted: Tensor, terms: int) -> float:
    if got.dtype != wanted.dtype or got.shape != wanted.shape or not bool(got.double().isfinite().all()):
        return float("inf")
    if not got.is_floating_point():
        return 0.0 if torch.equal(got, wanted) else float("inf")
    a, b = got.double(), wanted.double()
    relative = OPS[op].tolerance_for(got.dtype, terms)
    absolute = OPS[op].tolerance_for(torch.float32, terms) * float(b.abs().max())
    return float(((a - b).abs() / (2 * (absolute + relative * b.abs()))).max())
