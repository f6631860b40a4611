"""Devices that a run can be planned for: what their data sheets promise, and what they roughly cost."""

from __future__ import annotations

from dataclasses import dataclass

from prism_fast.errors import InputError


@dataclass(frozen=True)
class Device:
    """One accelerator.

    ``half_flops`` is the peak of dense bfloat16 and float16 matrix products with float32 accumulation, ``fp32_flops``
    that of plain float32; both a second, without sparsity.
    """

    name: str
    title: str
    half_flops: float
    fp32_flops: float
    bandwidth: float
    memory_bytes: float
    usd_per_hour: float

    def peak(self, precision: str) -> float:
        """Operations a second at ``fp32``, ``bf16`` or ``fp16``."""
        return self.fp32_flops if precision == "fp32" else self.half_flops


# Peaks, bandwidths and memory: NVIDIA's data sheets of each product; figures given there "with sparsity" are halved.
# Prices: round numbers of the order of on-demand clouds' lists in 2025, ours, of no authority; --price replaces them.
_DEVICES = (
    Device("t4", "NVIDIA T4", 65e12, 8.1e12, 320e9, 16e9, 0.5),
    Device("l4", "NVIDIA L4", 121e12, 30.3e12, 300e9, 24e9, 0.8),
    Device("l40s", "NVIDIA L40S", 362e12, 91.6e12, 864e9, 48e9, 1.8),
    Device("a100", "NVIDIA A100 SXM 80 GB", 312e12, 19.5e12, 2.039e12, 80e9, 2.0),
    Device("h100", "NVIDIA H100 SXM", 989e12, 67e12, 3.35e12, 80e9, 3.0),
    Device("h200", "NVIDIA H200 SXM", 989e12, 67e12, 4.8e12, 141e9, 3.8),
    Device("b200", "NVIDIA B200 SXM", 2.25e15, 75e12, 7.7e12, 180e9, 6.0),
)


def device_names() -> tuple[str, ...]:
    """Devices of the table."""
    return tuple(device.name for device in _DEVICES)


def find_device(name: str) -> Device:
    """The device of that name.

    Raises:
        InputError: the table has none.
    """
    for device in _DEVICES:
        if device.name == name.lower():
            return device
    raise InputError(f"device {name!r} is unknown, expected one of: {', '.join(device_names())}; or give --bench FILE")
