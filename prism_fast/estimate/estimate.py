"""From what a run computes to how long it takes, what it costs and what it needs, with every assumption in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from prism_fast.config import RunConfig
from prism_fast.estimate.count import RunCost
from prism_fast.estimate.devices import Device
from prism_fast.estimate.distillation import Distillation, estimate_distillation
from prism_fast.estimate.measured import Measured
from prism_fast.estimate.roofline import Efficiency, Limit, bytes_ratio, roofline_seconds
from prism_fast.views.codec import ViewCodec

__all__ = [
    "Distillation",
    "Efficiency",
    "Estimate",
    "PartTime",
    "Request",
    "make_estimate",
    "peak_memory_bytes",
    "precision_of",
    "storage_bytes",
]

#: Bytes of a picture per pixel. Photographs lie near these; flat drawings need a third of them as PNG.
_PER_PIXEL = {"png": 1.8, "jpg": 0.5, "webp": 0.35}
#: Per sample besides image and logits: five tar headers and their padding, prompt and energies, the index.
_PER_MEMBER = 512 + 256
_OVERHEAD = 5 * _PER_MEMBER + 500 + 150


@dataclass(frozen=True)
class PartTime:
    """One part's share of a batch."""

    part: str
    calls: int
    tflop_per_image: float
    gb_moved_per_image: float
    ms_per_image: float
    share: float
    limit: Limit


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    images: int
    count: int
    usd_per_hour: float
    efficiency: Efficiency = field(default_factory=Efficiency)
    price_from: str = "as given"


@dataclass(frozen=True)
class Estimate:
    """The answer; ``assumptions`` are all that it rests on."""

    images: int
    devices: int
    shards: int
    precision: str
    images_per_s_device: float
    hours: float
    gpu_hours: float
    usd: float
    storage_bytes: float
    peak_memory_bytes: float
    fits: bool | None
    limited_by: str
    parts: tuple[PartTime, ...]
    assumptions: tuple[str, ...]
    distillation: Distillation | None = None


def precision_of(config: RunConfig) -> str:
    """The type that a GPU computes a run in."""
    if config.engines.backend != "eager":
        return "bf16" if config.engines.precision == "auto" else config.engines.precision
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[config.sampling.dtype]


def _part_times(cost: RunCost, device: Device, precision: str, efficiency: Efficiency) -> tuple[PartTime, ...]:
    timed = [(part, *roofline_seconds(part, device, precision, efficiency)) for part in cost.parts if part.calls]
    whole, n = sum(seconds for _, seconds, _ in timed), cost.batch_size
    return tuple(
        PartTime(
            part.part,
            part.calls,
            part.calls * part.flops / n / 1e12,
            part.calls * part.moved_bytes * bytes_ratio(precision) / n / 1e9,
            1e3 * seconds / n,
            seconds / whole,
            limit,
        )
        for part, seconds, limit in timed
    )


def _shard_seconds(config: RunConfig, parts: tuple[PartTime, ...], measured: Measured | None) -> float:
    """One shard on one device; a last batch that is not full costs as much as a full one."""
    size, batch = config.synthesis.shard_size, config.sampling.fixed_batch_size
    if measured:
        return size / measured.images_per_s
    batches = -(-size // batch)
    return batches * batch * sum(part.ms_per_image for part in parts) / 1e3


def storage_bytes(config: RunConfig, images: int, classes: int) -> float:
    """Shards with their indices."""
    pixels = math.prod(config.stored_size)
    views = config.views.count * ViewCodec.of(classes, config.views.top_k).size_bytes
    headers = _OVERHEAD + _PER_MEMBER * (views > 0)
    return images * (pixels * _PER_PIXEL[config.synthesis.image_format] + 2 * classes + views + headers)


def peak_memory_bytes(config: RunConfig, cost: RunCost, precision: str) -> float:
    """The most of a run: weights, and the activations of the part that needs most, once for each stream.

    With engines it is the most of three moments. At the gate all float32 networks are loaded, and one of them computes
    beside its engine. When all engines are opened, the float32 networks are still there. Afterwards only those are
    that no engine computes.
    """
    ratio, streams = bytes_ratio(precision), config.launch.streams
    called = [part for part in cost.parts if part.calls]
    if config.engines.backend == "eager":
        return (cost.weight_bytes + streams * max(part.activation_bytes for part in called)) * ratio
    made = [part for part in called if part.part.removesuffix("_deep").removesuffix("_shallow") in config.engines.parts]
    left = [part for part in called if part not in made]
    engines = ratio * sum(part.weight_bytes for part in made)
    gate = max((part.activation_bytes * (1 + ratio) + part.weight_bytes * ratio for part in made), default=0.0)
    scales = [*((part, ratio) for part in made), *((part, 1.0) for part in left)]
    running = streams * max(part.activation_bytes * scale for part, scale in scales)
    kept = min(cost.weight_bytes, sum(part.weight_bytes for part in left))  # parts may share a network
    return max(cost.weight_bytes + max(gate, engines), kept + engines + running)


def make_estimate(
    config: RunConfig, cost: RunCost, request: Request, device: Device, measured: Measured | None = None
) -> Estimate:
    """Estimate a run on ``request.count`` devices.

    Args:
        config: the run.
        cost: what it computes.
        request: how many images on how many devices, at which price and efficiencies.
        device: whose roofline gives the time, or, with ``measured``, only each part's share of it.
        measured: a benchmark's rate and start, which then give the time.
    """
    precision = precision_of(config)
    parts = _part_times(cost, device, precision, request.efficiency)
    size = config.synthesis.shard_size
    shards = -(-request.images // size)
    shard_s = _shard_seconds(config, parts, measured)
    start_s = measured.start_s if measured else 0.0
    hours = (start_s + -(-shards // request.count) * shard_s) / 3600
    memory, slowest = peak_memory_bytes(config, cost, precision), max(parts, key=lambda part: part.share)
    return Estimate(
        images=request.images,
        devices=request.count,
        shards=shards,
        precision=precision,
        images_per_s_device=size / shard_s,
        hours=hours,
        gpu_hours=hours * request.count,
        usd=hours * request.count * request.usd_per_hour,
        storage_bytes=storage_bytes(config, request.images, cost.classes),
        peak_memory_bytes=memory,
        fits=None if measured else memory <= device.memory_bytes,
        limited_by=f"{slowest.part} ({slowest.share:.0%} of the time, bound by {slowest.limit})",
        parts=parts,
        assumptions=_assumptions(config, request, device, precision, measured),
        distillation=_distillation(config, cost, request, device),
    )


def _distillation(config: RunConfig, cost: RunCost, request: Request, device: Device) -> Distillation | None:
    if cost.lesson is None:
        return None
    images, count, price = request.images, request.count, request.usd_per_hour
    return estimate_distillation(config, cost.lesson, images, count, price, device, request.efficiency)


def _assumptions(
    config: RunConfig, request: Request, device: Device, precision: str, measured: Measured | None
) -> tuple[str, ...]:
    efficiency, sampling = request.efficiency, config.sampling
    peak = f"{device.peak(precision) / 1e12:g} TFLOP/s in {precision}, {device.bandwidth / 1e12:g} TB/s"
    rate = (
        f"rate: {measured.images_per_s:.3g} images a second, row {measured.variant} of {measured.file.name} "
        f"({measured.device})"
        if measured
        else f"rate: the roofline of {device.title}, {peak}; reached: {efficiency.compute:.0%} and "
        f"{efficiency.bandwidth:.0%} of these"
    )
    shares = (f"each part's share: the roofline of {device.title}, {peak}",) if measured else ()
    start = (
        f"start: {measured.start_s:.3g} s of each device for loading, opening engines and calibrating margins"
        if measured and measured.start_s
        else "start: loading, opening engines and calibrating margins take no time"
    )
    pixel = _PER_PIXEL[config.synthesis.image_format]
    return (
        rate,
        *shares,
        f"batches of {sampling.batch_size}, {sampling.steps} steps; every batch embeds new prompts, no sample settles",
        "moved bytes: matrix products, convolutions and attention; everything else is fused into them",
        "launching operators takes no time, which is far from true of networks as small as the minis",
        "devices share nothing and take whole shards; building engines, encoding and writing take none of their time",
        start,
        "memory: weights and the largest part's activations in each stream; with engines, if that is more, the float32 "
        "networks and engines beside them at the start; no fusion, workspace or fragmentation, and as if parts shared "
        "what they compute in",
        f"storage: {pixel:g} bytes a pixel as {config.synthesis.image_format}, logits, headers; no replication",
        f"price: {request.usd_per_hour:g} USD for an hour of one device, {request.price_from}; every device is paid "
        "until the last one is ready, storage is not counted",
    )
