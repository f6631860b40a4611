"""Run a built engine against eager on the same inputs: error, cosine, dead output, speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

from prism_engines.base import Engine
from prism_engines.errors import GateError
from prism_engines.spec import Precision

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Threshold:
    """What a precision must keep to: the largest relative error and the smallest cosine of a typical sample."""

    rel_error: float
    cosine: float


#: Ours, from what was measured with the minis (docs/engines.md). The derivative of a ReLU network jumps where an
#: activation crosses zero, so rounding moves a gradient further than a value: eager torch's own bf16 gradient of the
#: bundled teacher has cosine 0.89 to its fp32 one, a median relative error of 0.48.
THRESHOLDS: dict[Precision, Threshold] = {
    "fp32": Threshold(rel_error=1e-3, cosine=0.99999),
    "fp16": Threshold(rel_error=3e-2, cosine=0.999),
    "bf16": Threshold(rel_error=1e-1, cosine=0.99),
}
#: The same for an output called ``gradient``.
GRADIENT_THRESHOLDS: dict[Precision, Threshold] = {
    "fp32": Threshold(rel_error=5e-3, cosine=0.9999),
    "fp16": Threshold(rel_error=2e-1, cosine=0.98),
    "bf16": Threshold(rel_error=7e-1, cosine=0.8),
}


@dataclass(frozen=True)
class GateResult:
    """What the gate measured.

    Attributes:
        rel_error: largest over outputs of the median over samples of ``|engine - eager| / |eager|`` (2-norms). The
            median, because a ReLU at its kink may take the other side in one sample: both sides are subgradients.
        worst_rel_error: the same with the worst sample.
        cosine: smallest over outputs of the median cosine.
        eager_s: median seconds of a batch in eager; ``None`` where speed was not measured.
        engine_s: median seconds of a batch in the engine; ``None`` where it cannot run here.
        gated_through: the backend that was compared; another one where the engine itself cannot run here.
    """

    rel_error: float
    worst_rel_error: float
    cosine: float
    eager_s: float | None
    engine_s: float | None
    gated_through: str

    @property
    def speedup(self) -> float | None:
        """Eager's time over the engine's."""
        return self.eager_s / self.engine_s if self.eager_s and self.engine_s else None

    def numbers(self) -> dict[str, float | str | None]:
        """All of it, as a store's record keeps it."""
        return {**asdict(self), "speedup_vs_eager": self.speedup}


def _rows(x: torch.Tensor) -> torch.Tensor:
    x = x.detach().double().reshape(len(x), -1)
    return x.unsqueeze(1) if x.dim() == 1 else x


def sample_errors(engine: torch.Tensor, eager: torch.Tensor) -> torch.Tensor:
    """Relative error of each sample (n,); one number a sample is compared with the batch's RMS instead."""
    a, b = _rows(engine), _rows(eager)
    scale = b.norm(dim=1) if b.shape[1] > 1 else b.square().mean().sqrt().expand(len(b))
    errors: torch.Tensor = (a - b).norm(dim=1) / scale.clamp_min(1e-12)
    return errors


def sample_cosines(engine: torch.Tensor, eager: torch.Tensor) -> torch.Tensor:
    """Cosine of each sample (n,); of the whole batch for outputs of one number a sample."""
    a, b = _rows(engine), _rows(eager)
    if b.shape[1] == 1:
        a, b = a.t(), b.t()
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def _median(x: torch.Tensor) -> float:
    """Of an even number, the mean of the middle two: torch takes the lower, so that half of a batch could be wrong."""
    return float(statistics.median(x.tolist()))


def _dead(engine: torch.Tensor, eager: torch.Tensor) -> bool:
    """A constant image where eager's is not: black, white or grey."""
    return bool(_rows(engine).std(correction=0) < 1e-6) and not bool(_rows(eager).std(correction=0) < 1e-6)


@dataclass(frozen=True)
class OutputError:
    """How far one output of the engine is from eager's: see :class:`GateResult`."""

    name: str
    rel_error: float
    worst_rel_error: float
    cosine: float


def _compare_output(name: str, engine: torch.Tensor, eager: torch.Tensor, who: str) -> OutputError:
    if engine.shape != eager.shape:
        raise GateError(f"{who}: output {name} is {tuple(engine.shape)}, eager gives {tuple(eager.shape)}")
    if not bool(torch.isfinite(eager).all()):
        raise GateError(f"{who}: eager's output {name} holds NaN or infinity; it cannot judge an engine")
    if not bool(torch.isfinite(engine).all()):
        raise GateError(f"{who}: output {name} holds NaN or infinity where eager's is finite")
    if _dead(engine, eager):
        raise GateError(f"{who}: output {name} is constant where eager's is not")
    errors = sample_errors(engine, eager)
    return OutputError(name, _median(errors), float(errors.max()), _median(sample_cosines(engine, eager)))


def compare(engine: Engine, oracle: Engine, inputs: Sequence[Inputs], outputs: Sequence[str]) -> list[OutputError]:
    """Every output for every input.

    Raises:
        GateError: an output is missing, of another shape, not finite or constant where eager's is not; or eager's is
            not finite, so that nothing can be judged.
    """
    found = []
    for given in inputs:
        with ieee_float32():
            want = oracle.run(*given)
        got = engine.run(*given)
        if len(want) != len(got):
            raise GateError(f"{engine.name}: it has {len(got)} outputs, eager has {len(want)}")
        rows = zip(outputs, got, want, strict=True)
        found += [_compare_output(name, a, b, engine.name) for name, a, b in rows]
    return found


def _judge(errors: Sequence[OutputError], who: str, precision: Precision) -> None:
    for one in errors:
        limit = (GRADIENT_THRESHOLDS if one.name == "gradient" else THRESHOLDS)[precision]
        if one.rel_error > limit.rel_error or one.cosine < limit.cosine:
            raise GateError(
                f"{who} ({precision}): output {one.name} has relative error {one.rel_error:.3g} (at most "
                f"{limit.rel_error:g}), cosine {one.cosine:.5f} (at least {limit.cosine:g}); nothing was stored"
            )


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Meanwhile a GPU computes float32 with all of its mantissa.

    cuDNN's convolutions have ten bits of it by default (TF32): nothing to judge float32 by. Only what judges is held
    to this; an engine, and eager where it is timed, compute as they will in a run.
    """
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [one.fp32_precision for one in settings]
    try:
        for one in settings:
            one.fp32_precision = "ieee"
        yield
    finally:
        for one, precision in zip(settings, before, strict=True):
            one.fp32_precision = precision


def median_s(run: Callable[[], object], repeats: int = 5, device: torch.device | None = None) -> float:
    """Median seconds of a call, after one that does not count; on a GPU until what it started there is done."""
    run()
    times = []
    for _ in range(repeats):
        _wait_for(device)
        start = time.perf_counter()
        run()
        _wait_for(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _wait_for(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def gate(
    engine: Engine,
    oracle: Engine,
    inputs: Sequence[Inputs],
    outputs: Sequence[str],
    precision: Precision,
    gated_through: str,
    timed: bool = True,
) -> GateResult:
    """Measure and judge an engine.

    Raises:
        GateError: it differs by more than ``THRESHOLDS`` allows; the message holds the numbers.
    """
    errors = compare(engine, oracle, inputs, outputs)
    _judge(errors, engine.name, precision)
    device = next((x.device for x in inputs[0]), None)
    eager_s = median_s(lambda: oracle.run(*inputs[0]), device=device) if timed else None
    engine_s = median_s(lambda: engine.run(*inputs[0]), device=device) if timed else None
    return GateResult(
        max(e.rel_error for e in errors),
        max(e.worst_rel_error for e in errors),
        min(e.cosine for e in errors),
        eager_s,
        engine_s,
        gated_through,
    )
