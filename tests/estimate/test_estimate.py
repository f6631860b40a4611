"""The arithmetic from counts to hours, with numbers small enough to check by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prism_fast.config import RunConfig, load_config
from prism_fast.errors import DataError, InputError
from prism_fast.estimate.count import PartCost, RunCost
from prism_fast.estimate.devices import Device, device_names, find_device
from prism_fast.estimate.estimate import Efficiency, Estimate, Request, make_estimate, precision_of
from prism_fast.estimate.measured import Measured, read_bench

DEVICE = Device("toy", "Toy", half_flops=200.0, fp32_flops=100.0, bandwidth=50.0, memory_bytes=1000.0, usd_per_hour=2.0)
#: A batch of 4: unet 10 calls of 100 operations and 10 bytes, decoder one call of 50 operations and 400 bytes.
COST = RunCost(4, 8, (PartCost("unet", 10, 100, 10, 300, 80), PartCost("decoder", 1, 50, 400, 100, 500)), 400)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    sizes = ("sampling.batch_size=4", "synthesis.shard_size=8", "synthesis.images=64", "engines.backend=eager")
    return load_config("minis-emoji", (*sizes, "launch.streams=1"))


def plan(config: RunConfig, images: int = 64, count: int = 2, **more: object) -> Estimate:
    request = Request(images, count, 2.0, Efficiency(0.5, 0.5))
    return make_estimate(config, COST, request, DEVICE, **more)  # type: ignore[arg-type]


def test_the_roofline_by_hand(config: RunConfig) -> None:
    """float32: the UNet computes 1000 / (100 / 2) = 20 s a batch; the decoder moves 400 / (50 / 2) = 16 s."""
    made = plan(config)
    assert [(p.part, p.limit) for p in made.parts] == [("unet", "compute"), ("decoder", "memory")]
    assert [p.ms_per_image for p in made.parts] == pytest.approx([5000, 4000])
    assert made.images_per_s_device == pytest.approx(4 / 36)
    assert made.shards == 8
    assert made.hours == pytest.approx(4 * 2 * 36 / 3600)  # four shards each, two batches a shard
    assert made.gpu_hours == pytest.approx(2 * made.hours)
    assert made.usd == pytest.approx(4 * made.hours)
    assert made.limited_by.startswith("unet (56% of the time, bound by compute")
    assert (made.peak_memory_bytes, made.fits) == (900, True)


def with_engines(config: RunConfig, streams: int = 1, **changes: object) -> RunConfig:
    engines = config.engines.model_copy(update={"backend": "openvino", "precision": "fp32", **changes})
    launch = config.launch.model_copy(update={"streams": streams})
    return config.model_copy(update={"engines": engines, "launch": launch})


def test_a_gate_needs_the_networks_and_an_engine(config: RunConfig) -> None:
    """In fp32 the decoder's: all weights, and its activations twice, eager's and those of the engine, with its weights.

    Afterwards there are the engines alone: less, unless several streams compute at once.
    """
    assert plan(with_engines(config)).peak_memory_bytes == 400 + 500 + (100 + 500)
    assert plan(with_engines(config, 4)).peak_memory_bytes == (300 + 100) + 4 * 500
    assert plan(with_engines(config, precision="bf16")).peak_memory_bytes == 400 + 500 + (100 + 500) / 2


def test_opening_needs_every_engine_beside_the_networks(config: RunConfig) -> None:
    small = replace(COST, parts=tuple(replace(part, activation_bytes=10) for part in COST.parts))
    made = make_estimate(with_engines(config), small, Request(64, 2, 2.0), DEVICE)
    assert made.peak_memory_bytes == 400 + (300 + 100)


def test_a_part_without_an_engine_keeps_its_network(config: RunConfig) -> None:
    only = with_engines(config, 4, parts=("unet",), precision="bf16")
    assert plan(only).peak_memory_bytes == 100 + 300 / 2 + 4 * 500
    halves = replace(COST, parts=(replace(COST.parts[0], part="unet_deep"), COST.parts[1]))
    assert make_estimate(only, halves, Request(64, 2, 2.0), DEVICE).peak_memory_bytes == 100 + 300 / 2 + 4 * 500


def test_half_precision_computes_twice_as_fast_and_moves_half(config: RunConfig) -> None:
    half = config.model_copy(update={"sampling": config.sampling.model_copy(update={"dtype": "bfloat16"})})
    made = plan(half)
    assert [p.ms_per_image for p in made.parts] == [pytest.approx(2500), pytest.approx(2000)]
    assert made.peak_memory_bytes == 450
    small = replace(DEVICE, memory_bytes=449.0)
    assert make_estimate(half, COST, Request(8, 1, 1.0), small).fits is False


def test_a_shard_that_is_begun_is_paid_for(config: RunConfig) -> None:
    assert plan(config, images=65).hours == pytest.approx(5 / 4 * plan(config, images=64).hours)
    assert plan(config, images=80).hours == plan(config, images=65).hours
    odd = config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"shard_size": 5})})
    assert plan(odd).images_per_s_device == pytest.approx(5 / (2 * 36))  # two batches for five images


def test_storage_follows_pixels_and_classes(config: RunConfig) -> None:
    one, two = plan(config, images=1).storage_bytes, plan(config, images=2).storage_bytes
    assert two == 2 * one
    assert one > 64 * 64 * 1.8 + 2 * 8
    jpg = config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"image_format": "jpg"})})
    assert plan(jpg, images=1).storage_bytes == pytest.approx(one - 64 * 64 * (1.8 - 0.5))


def test_a_measured_rate_replaces_the_roofline(config: RunConfig) -> None:
    made = plan(config, measured=Measured(2.0, "ours", "a card", Path("rows.json")))
    assert made.images_per_s_device == 2.0
    assert made.hours == pytest.approx(4 * 4 / 3600)  # four shards of eight images each
    assert made.fits is None  # the device that was measured is not the table's
    assert "2 images a second, row ours of rows.json (a card)" in made.assumptions[0]


def test_a_measured_start_is_paid_once_by_each_device(config: RunConfig) -> None:
    """Ten seconds before the first batch: much of a short run, nothing of a long one."""
    warm, cold = (Measured(2.0, "ours", "a card", Path("rows.json"), start_s) for start_s in (0.0, 10.0))
    assert plan(config, measured=cold).hours == pytest.approx((10 + 4 * 4) / 3600)
    assert plan(config, measured=cold).gpu_hours == pytest.approx(2 * (10 + 4 * 4) / 3600)
    longer = [plan(config, images=640_000, measured=found).hours for found in (warm, cold)]
    assert longer[1] - longer[0] == pytest.approx(10 / 3600)
    assert any("start: 10 s of each device" in line for line in plan(config, measured=cold).assumptions)
    assert any(line.endswith("calibrating margins take no time") for line in plan(config, measured=warm).assumptions)


def test_every_number_that_was_assumed_is_said(config: RunConfig) -> None:
    said = " ".join(plan(config).assumptions)
    for word in ("50% and 50%", "1e-10 TFLOP/s", "batches of 4", "1.8 bytes a pixel", "2 USD"):
        assert word in said


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (("engines.backend=openvino",), "bf16"),
        (("engines.backend=openvino", "engines.precision=fp16"), "fp16"),
        (("engines.backend=eager",), "fp32"),
        (("engines.backend=eager", "sampling.dtype=float16"), "fp16"),
    ],
)
def test_the_precision_is_the_configurations(settings: tuple[str, ...], wanted: str) -> None:
    assert precision_of(load_config("minis-emoji", settings)) == wanted


def test_the_table_of_devices() -> None:
    assert {"h100", "a100", "l4"} <= set(device_names())
    for device in map(find_device, device_names()):
        assert device.fp32_flops < device.half_flops  # a sparse figure or a wrong unit stands out
        assert 10 < device.half_flops / device.bandwidth < 500
    assert find_device("H100").memory_bytes == 80e9
    with pytest.raises(InputError, match="device 'v100' is unknown, expected one of: t4, l4"):
        find_device("v100")


def write_bench(path: Path, **changes: object) -> Path:
    rows = [{"variant": "ours", "images_per_s": {"p50": 3.5}}, {"variant": "reference", "images_per_s": {"p50": 1.0}}]
    document = {"config": "minis-emoji", "environment": {"device": "a card"}, "rows": rows, **changes}
    path.write_text(json.dumps(document))
    return path


def test_a_benchmark_file_gives_its_median(tmp_path: Path) -> None:
    file = write_bench(tmp_path / "rows.json")
    assert read_bench(file, "minis-emoji") == Measured(3.5, "ours", "a card", file)
    assert read_bench(file, "minis-emoji", "reference").images_per_s == 1.0
    rows = [{"variant": "ours", "images_per_s": {"p50": 3.5}, "start_s": 7.5}]
    assert read_bench(write_bench(tmp_path / "new.json", rows=rows), "minis-emoji").start_s == 7.5
    with pytest.raises(InputError, match=r"has no rate of 'theirs'; it has: ours, reference"):
        read_bench(file, "minis-emoji", "theirs")
    with pytest.raises(InputError, match=r"measured 'minis-emoji', but the plan is for 'other'"):
        read_bench(file, "other")


@pytest.mark.parametrize("changes", [{"rows": [{}]}, {"rows": 3}, {"environment": None}])
def test_what_is_no_benchmark_file_is_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(DataError, match="is not what 'prism-fast bench guided --json"):
        read_bench(write_bench(tmp_path / "rows.json", **changes), "minis-emoji")
    with pytest.raises(DataError, match="is not what"):
        read_bench(tmp_path / "absent.json", "minis-emoji")
