"""Run a built engine against eager on the same inputs: error, cosine, dead output, speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
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


#: Ours, from what was measured with the minis: fp32 backends stay below 1e-5, bf16 below 0.05 (docs/engines.md).
THRESHOLDS: dict[Precision, Threshold] = {
    "fp32": Threshold(rel_error=1e-3, cosine=0.99999),
    "fp16": Threshold(rel_error=3e-2, cosine=0.999),
    "bf16": Threshold(rel_error=2e-1, cosine=0.98),
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
    return (a - b).norm(dim=1) / scale.clamp_min(1e-12)


def sample_cosines(engine: torch.Tensor, eager: torch.Tensor) -> torch.Tensor:
    """Cosine of each sample (n,); of the whole batch for outputs of one number a sample."""
    a, b = _rows(engine), _rows(eager)
    if b.shape[1] == 1:
        a, b = a.t(), b.t()
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def _dead(engine: torch.Tensor, eager: torch.Tensor) -> bool:
    """A constant image where eager's is not: black, white or grey."""
    return bool(_rows(engine).std() < 1e-6) and not bool(_rows(eager).std() < 1e-6)


def compare(engine: Engine, oracle: Engine, inputs: Sequence[Inputs], outputs: Sequence[str]) -> tuple[float, ...]:
    """``(rel_error, worst_rel_error, cosine)`` over all inputs and outputs.

    Raises:
        GateError: an output is missing, of another shape, not finite or constant where eager's is not.
    """
    errors, cosines = [], []
    for given in inputs:
        want, got = oracle.run(*given), engine.run(*given)
        if [tuple(x.shape) for x in want] != [tuple(x.shape) for x in got]:
            raise GateError(
                f"{engine.name}: outputs {[tuple(x.shape) for x in got]}, eager gives {[tuple(x.shape) for x in want]}"
            )
        for name, a, b in zip(outputs, got, want, strict=True):
            if bool(torch.isfinite(b).all()) and not bool(torch.isfinite(a).all()):
                raise GateError(f"{engine.name}: output {name} holds NaN or infinity where eager's is finite")
            if _dead(a, b):
                raise GateError(f"{engine.name}: output {name} is constant where eager's is not")
            errors.append(sample_errors(a, b))
            cosines.append(sample_cosines(a, b))
    typical = max(float(e.median()) for e in errors)
    return typical, max(float(e.max()) for e in errors), min(float(c.median()) for c in cosines)


def median_s(run: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of a call, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


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
    error, worst, cosine = compare(engine, oracle, inputs, outputs)
    limit = THRESHOLDS[precision]
    if error > limit.rel_error or cosine < limit.cosine:
        raise GateError(
            f"{engine.name} ({precision}): relative error {error:.3g} (at most {limit.rel_error:g}), "
            f"cosine {cosine:.5f} (at least {limit.cosine:g}); nothing was stored"
        )
    eager_s = median_s(lambda: oracle.run(*inputs[0])) if timed else None
    engine_s = median_s(lambda: engine.run(*inputs[0])) if timed else None
    return GateResult(error, worst, cosine, eager_s, engine_s, gated_through)
