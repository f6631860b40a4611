"""What only a GPU can show: that what was faked and mocked elsewhere holds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prism_engines.backends import backend
from prism_engines.backends.padded import PaddedEngine
from prism_engines.base import Engine
from prism_engines.graph import Graph
from prism_engines.scratch import shared_scratch

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.plan import build_plan
from prism_fast.sampling.transfer import to_device, to_host
from prism_fast.synthesis.overlap import pipelined
from prism_fast.synthesis.streams import CudaStreams, Stage
from prism_fast.synthesis.synthesizer import Made, Synthesizer
from tests.engines import tiny

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")]


def test_what_is_copied_there_and_back_is_the_same() -> None:
    given = [torch.randn(3, 4), torch.arange(7), torch.tensor([True, False]), torch.arange(5, dtype=torch.uint8)]
    there = to_device(given, torch.device("cuda"))
    assert {x.device.type for x in there} == {"cuda"}
    assert all(torch.equal(a, b) for a, b in zip(to_host(there), given, strict=True))


@pytest.mark.parametrize("mode", ["denoised", "latent"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_run_is_nearly_that_of_the_cpu(config: RunConfig, dtype: str, mode: str) -> None:
    rows, changes = build_plan(config, 4), {"guidance.mode": mode}
    wanted = Synthesizer.load(assign(config, changes)).make(rows).samples
    changes |= {"sampling.device": "cuda", "sampling.dtype": dtype}
    found = Synthesizer.load(assign(config, changes)).make(rows).samples
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.image.device.type == a.logits.device.type == "cpu"
        assert (a.image.float() - b.image.float()).abs().mean() < 4


def test_denoising_waits_for_nothing(config: RunConfig) -> None:
    """torch itself says where the host waits."""
    run, rows = Synthesizer.load(assign(config, {"sampling.device": "cuda"})), build_plan(config, 4)
    run.make(rows)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.denoise(rows)
    finally:
        torch.cuda.set_sync_debug_mode(before)


GPU_ENGINES = ("inductor", "onnxruntime", "tensorrt", "tensorrt_rtx")
#: Those that come back before the GPU is done; with ONNX Runtime the host waits.
EARLY = ("inductor", "tensorrt", "tensorrt_rtx")


def opened(name: str, folder: Path, streams: int = 1) -> Engine:
    """The tiny network as an fp16 engine on the GPU, built where there is none in ``folder``."""
    one, spec = backend(name), replace(tiny.spec("fp16"), device="cuda")
    if reasons := [*one.reasons(spec), *one.run_reasons(spec)]:
        pytest.skip("; ".join(reasons))
    if not folder.exists():
        folder.mkdir()
        inputs = tuple(x.cuda() for x in tiny.batch(tiny.BATCH))
        one.build(Graph(spec, lambda p: tiny.net(p).cuda(), inputs, folder.with_name("graph")), spec, folder)
    return one.open(spec, folder, streams)


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("name", GPU_ENGINES)
def test_runs_of_threads_on_streams_of_their_own_do_not_meet(name: str, streams: int, tmp_path: Path) -> None:
    batches = [tiny.batch(tiny.BATCH, seed) for seed in range(32)]

    def run(given: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        with torch.cuda.stream(torch.cuda.Stream()):
            found = engine.run(*(x.cuda() for x in given))  # the inputs are gone when the run has been started
            return [x.cpu() for x in found]

    with opened(name, tmp_path / name, streams) as engine, ThreadPoolExecutor(4) as pool:
        for given, found in zip(batches, pool.map(run, batches), strict=True):
            for got, want in zip(found, tiny.net()(*given), strict=True):
                torch.testing.assert_close(got, want, rtol=0, atol=0.01)


@pytest.mark.parametrize("of_its_own", [False, True], ids=["default stream", "own stream"])
@pytest.mark.parametrize("name", EARLY)
def test_a_run_comes_back_before_the_gpu_is_done(name: str, of_its_own: bool, tmp_path: Path) -> None:
    stream = torch.cuda.Stream() if of_its_own else torch.cuda.default_stream()
    given = [x.cuda() for x in tiny.batch(tiny.BATCH)]
    with opened(name, tmp_path / name) as engine, torch.cuda.stream(stream):
        for _ in range(3):  # the first ones load kernels, and capture a graph
            engine.run(*given)
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000_000)
        found = engine.run(*given)
        assert not stream.query()
        for got, want in zip(found, tiny.net()(*tiny.batch(tiny.BATCH)), strict=True):
            torch.testing.assert_close(got.cpu(), want, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_open_engines_share_their_scratch_memory(name: str, tmp_path: Path) -> None:
    given = [x.cuda() for x in tiny.batch(tiny.BATCH)]
    with opened(name, tmp_path / "a") as one, opened(name, tmp_path / "b") as other:
        assert isinstance(one, PaddedEngine)
        with torch.cuda.stream(torch.cuda.Stream()):
            first, second = one.run(*given), other.run(*given)
            with shared_scratch("cuda").lend(torch.cuda.current_stream()) as memory:
                assert len(memory) == max(1, one._reserved or 0, other._reserved or 0)  # type: ignore[attr-defined]
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_tensorrt_rtx_finds_its_kernels_when_it_opens_again(tmp_path: Path) -> None:
    opened("tensorrt_rtx", tmp_path / "engine").close()
    (file,) = (tmp_path / "engine" / "cache").iterdir()
    kept = file.read_bytes()
    assert len(kept) > 1000
    opened("tensorrt_rtx", tmp_path / "engine").close()
    assert file.read_bytes() == kept, "kernels that were found are not compiled again"
    file.write_bytes(b"damaged")
    opened("tensorrt_rtx", tmp_path / "engine").close()
    assert len(file.read_bytes()) > 1000


def same_samples(found: list[Made], wanted: list[Made]) -> None:
    """Byte for byte."""
    a_run, another = ([sample for made in run for sample in made.samples] for run in (found, wanted))
    assert a_run
    for a, b in zip(a_run, another, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.logits, b.logits)
        assert a.meta == b.meta


def in_flight(config: RunConfig, depth: int, streams: int, images: int = 16) -> list[Made]:
    """A run of batches of two, so many of them at once."""
    settings = {"sampling.device": "cuda", "sampling.batch_size": 2}
    launch = {"launch.streams": streams, "launch.pipeline_depth": depth}
    run = Synthesizer.load(assign(config, settings | launch))
    stages = (lambda rows: (rows, run.denoise(rows)), lambda pair: run.finish(*pair))
    return list(pipelined(run.parts(build_plan(config, images)), stages, depth, streams))


@pytest.mark.parametrize("mode", ["denoised", "latent"])
def test_streams_change_no_byte(config: RunConfig, mode: str) -> None:
    """Three times: what one stream reads too early it may read in time by luck."""
    config = assign(config, {"guidance.mode": mode})
    wanted = in_flight(config, 0, 1)
    for depth, streams in ((2, 1), (0, 2), (2, 2)) * 3:
        same_samples(in_flight(config, depth, streams), wanted)


def test_what_is_handed_over_is_waited_for_on_the_device() -> None:
    """The first stream sleeps before it writes; the host is not kept, and the second still reads what was written."""
    device = torch.device("cuda")
    streams = CudaStreams(device, 1, overlap=True)
    torch.cuda.synchronize()
    with streams.on("denoise"):
        torch.cuda._sleep(10**8)
        made = torch.full((1 << 20,), 7.0, device=device)
        mark = streams.mark()
    assert not mark.query()
    with streams.on("finish"):
        streams.take(mark, [made])
        read = made.clone()
        del made
        (found,) = to_host([read])
    assert bool((found == 7).all())


def test_stages_overlap_on_the_device() -> None:
    """Two sleeps on two streams take the time of one."""
    streams = CudaStreams(torch.device("cuda"), 2, overlap=True)

    def seconds(stages: tuple[Stage, ...]) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for stage in stages:
            with streams.on(stage):
                torch.cuda._sleep(3 * 10**8)
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    seconds(("denoise",))
    alone = seconds(("denoise",))
    assert seconds(("denoise", "denoise", "finish")) < 1.5 * alone


def test_prompts_are_moved_from_pinned_memory(config: RunConfig) -> None:
    run = Synthesizer.load(assign(config, {"sampling.device": "cuda"}))
    run.embed(["a red cat"])
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.embed(["a blue dog"])
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.timeout(4 * 3600)
def test_gpu_check_finds_nothing_wrong(tmp_path: Path) -> None:
    """The whole command; what fails is in the message, with its remedy."""
    from prism_fast import check_gpu

    checked = check_gpu(out=tmp_path)
    assert [one for one in checked.steps if one.status == "FAIL"] == []
    assert checked.passed
