"""Time by the roofline: a part takes what the slower of computing and moving takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prism_fast.estimate.count import PartCost
from prism_fast.estimate.devices import Device

Limit = Literal["compute", "memory"]
_FLOAT32 = 4


@dataclass(frozen=True)
class Efficiency:
    """What part of a data sheet's peak is reached.

    Compute: SDXL at 1024 pixels, 30 steps, is about 370 TFLOP; compiled in bfloat16 on an A100 it took 2.54 s
    (pytorch.org/blog/accelerating-generative-ai-3), 47 % of that card's 312 TFLOP/s. Bandwidth: ours, not measured.
    """

    compute: float = 0.45
    bandwidth: float = 0.8


def bytes_ratio(precision: str) -> float:
    """Bytes of a number, as a part of float32's."""
    return 1.0 if precision == "fp32" else 2 / _FLOAT32


def roofline_seconds(cost: PartCost, device: Device, precision: str, efficiency: Efficiency) -> tuple[float, Limit]:
    """Roofline of a part's calls in one batch: the slower of computing and moving."""
    compute = cost.calls * cost.flops / (device.peak(precision) * efficiency.compute)
    moved = cost.calls * cost.moved_bytes * bytes_ratio(precision)
    memory = moved / (device.bandwidth * efficiency.bandwidth)
    return (compute, "compute") if compute >= memory else (memory, "memory")
