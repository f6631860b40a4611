"""TensorRT engines on streams of a fake GPU: what runs late must not meet what runs next."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from prism_engines import streams
from prism_engines.backends.tensorrt_engine import FILE, TensorRtEngine
from prism_engines.errors import EngineInputError
from prism_engines.record import stored_files
from prism_engines.scratch import ScratchMemory, shared_scratch
from prism_engines.spec import EngineSpec, TensorSpec
from torch import Tensor

from tests.engines.fake_gpu import Gpu, Library

SHAPE = (4, 8)
#: What one run needs, in bytes, at least.
SMALL = 4 * 8 * 4
ORDERS = range(20)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    streams._beside.cache_clear()
    yield Gpu(monkeypatch)
    streams._beside.cache_clear()


@pytest.fixture
def scratch() -> ScratchMemory:
    return ScratchMemory("cpu")


def opened(trt: Library, folder: Path, scratch: ScratchMemory, size: int = SMALL, streams: int = 2) -> TensorRtEngine:
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_text(str(size))
    spec = EngineSpec("double", (TensorSpec("x", SHAPE),), ("y",), device="cpu")
    return TensorRtEngine(trt, spec, folder, streams, scratch).open()


def inputs(count: int) -> list[Tensor]:
    return [torch.full(SHAPE, float(i + 1)) for i in range(count)]


def doubled(outputs: list[Tensor]) -> bool:
    return all(torch.equal(out, torch.full(SHAPE, 2.0 * (i + 1))) for i, out in enumerate(outputs))


@pytest.mark.parametrize("order", ORDERS)
def test_a_context_waits_for_its_last_run_on_another_stream(
    order: int, gpu: Gpu, scratch: ScratchMemory, tmp_path: Path
) -> None:
    trt = Library(gpu, SHAPE)
    engine = opened(trt, tmp_path, scratch, streams=1)
    given, used = inputs(6), [gpu.new(), gpu.new()]
    found: list[Tensor] = []
    for i, x in enumerate(given):
        with gpu.on(used[i % 2]):
            found += engine.run(x)
    gpu.finish(random.Random(order))
    assert trt.overlaps == 0
    assert doubled(found)


@pytest.mark.parametrize("order", ORDERS)
def test_two_threads_on_one_stream_do_not_mix_what_they_compute_in(
    order: int, gpu: Gpu, scratch: ScratchMemory, tmp_path: Path
) -> None:
    trt, stream = Library(gpu, SHAPE), gpu.new()
    engines = [opened(trt, tmp_path / name, scratch) for name in ("a", "b")]
    given = inputs(4)

    def run(i: int) -> Tensor:
        with gpu.on(stream):
            return engines[i % 2].run(given[i])[0]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, range(4)))
    gpu.finish(random.Random(order))
    assert doubled(found)


def test_engines_share_as_much_memory_as_the_largest_needs(gpu: Gpu, scratch: ScratchMemory, tmp_path: Path) -> None:
    trt, used = Library(gpu, SHAPE), [gpu.new(), gpu.new()]
    small, large = opened(trt, tmp_path / "a", scratch, 1000), opened(trt, tmp_path / "b", scratch, 3000)
    for stream in used:
        with gpu.on(stream):
            small.run(*inputs(1))
            large.run(*inputs(1))
    lent = [(address, size) for what, address, size in trt.log if what == "memory"]
    assert [size for _, size in lent] == [3000] * 4
    assert lent[0] == lent[1] != lent[2] == lent[3], "one buffer a stream"
    assert trt.asked == ["by us"] * 4


def test_memory_goes_back_with_the_last_engine(gpu: Gpu, scratch: ScratchMemory, tmp_path: Path) -> None:
    trt = Library(gpu, SHAPE)
    small, large = opened(trt, tmp_path / "a", scratch, 1000), opened(trt, tmp_path / "b", scratch, 3000)
    large.close()
    large.close()  # twice is once
    with scratch.lend(gpu.streams[0]) as memory:  # type: ignore[arg-type]
        assert len(memory) == 1000
    small.close()
    assert scratch._lanes == {}
    assert shared_scratch("cuda:1") is shared_scratch("cuda:1") is not shared_scratch("cuda:0")


def test_memory_and_addresses_are_given_before_each_start(gpu: Gpu, scratch: ScratchMemory, tmp_path: Path) -> None:
    trt = Library(gpu, SHAPE)
    with gpu.on(gpu.new()), opened(trt, tmp_path, scratch) as engine:
        (x,) = inputs(1)
        (y,) = engine.run(x)
    assert [what for what, _, _ in trt.log] == ["address", "address", "memory", "execute"]
    assert trt.log[0][1:] == ("x", x.data_ptr())
    assert trt.log[1][1:] == ("y", y.data_ptr())


@pytest.mark.parametrize("order", ORDERS)
def test_the_default_stream_is_spared_and_kept_in_order(
    order: int, gpu: Gpu, scratch: ScratchMemory, tmp_path: Path
) -> None:
    trt = Library(gpu, SHAPE)
    engine = opened(trt, tmp_path, scratch)
    x, copy = torch.zeros(SHAPE), torch.zeros(SHAPE)
    gpu.current.add(lambda: x.fill_(3.0))
    (y,) = engine.run(x)
    gpu.current.add(lambda: copy.copy_(y))
    assert gpu.current.cuda_stream == 0
    gpu.finish(random.Random(order))
    assert copy.eq(6.0).all()
    assert [handle for what, handle, _ in trt.log if what == "execute"] == [1]


def test_a_run_that_does_not_start_is_an_error_and_frees_its_context(
    gpu: Gpu, scratch: ScratchMemory, tmp_path: Path
) -> None:
    trt = Library(gpu, SHAPE)
    engine = opened(trt, tmp_path, scratch, streams=1)
    trt.starts = False
    with pytest.raises(EngineInputError, match="tensorrt did not run part double; rebuild"):
        engine.run(*inputs(1))
    trt.starts = True
    given = inputs(1)
    found = list(engine.run(*given))
    gpu.finish(random.Random(0))
    assert doubled(found)


def test_compiled_kernels_are_kept_and_are_no_part_of_the_engine(
    gpu: Gpu, scratch: ScratchMemory, tmp_path: Path
) -> None:
    trt = Library(gpu, SHAPE, rtx=True)
    opened(trt, tmp_path, scratch)
    (file,) = (tmp_path / "cache").iterdir()
    assert (file.name, file.read_bytes()) == ("kernels-1.0", b"kernels compiled")
    assert [one.name for one in stored_files(tmp_path)] == [FILE]
    file.write_bytes(b"kernels of before")
    opened(trt, tmp_path, scratch)
    assert trt.configs[-1].cache.data == b"kernels of before"
    assert file.read_bytes() == b"kernels of before"
    file.write_bytes(b"garbage")
    opened(trt, tmp_path, scratch)
    assert trt.configs[-1].cache.data == b""
    assert file.read_bytes() == b"kernels compiled"
    assert list((tmp_path / "cache").iterdir()) == [file], "attempts are cleared away"
    assert {config.strategy for config in trt.configs} == {"by us"}
    assert trt.asked == [one for config in trt.configs for one in (config, config)]


def test_a_store_that_cannot_be_written_to_opens_all_the_same(gpu: Gpu, scratch: ScratchMemory, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    engine = opened(Library(gpu, SHAPE, rtx=True), tmp_path, scratch)
    engine.close()
    assert (tmp_path / "cache").read_text() == "a file in the way"


def test_a_graph_always_sees_the_same_addresses(gpu: Gpu, scratch: ScratchMemory, tmp_path: Path) -> None:
    trt = Library(gpu, SHAPE, rtx=True)
    engine = opened(trt, tmp_path, scratch, streams=1)
    assert trt.configs[-1].cuda_graph_strategy == "WHOLE"
    given = inputs(3)
    kept = [engine.run(x)[0] for x in given]
    used = {(name, address) for what, name, address in trt.log if what == "address"}
    assert len(used) == 2
    assert used.isdisjoint({("x", x.data_ptr()) for x in given} | {("y", y.data_ptr()) for y in kept})
    assert len({y.data_ptr() for y in kept}) == 3, "outputs belong to the caller"


def test_several_streams_are_not_captured(gpu: Gpu, scratch: ScratchMemory, tmp_path: Path) -> None:
    trt = Library(gpu, SHAPE, rtx=True)
    opened(trt, tmp_path, scratch, streams=2)
    assert trt.configs[-1].cuda_graph_strategy == "DISABLED"


def test_the_installed_tensorrt_rtx_has_what_is_called() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    called = {
        trt.ICudaEngine: "create_execution_context create_runtime_config device_memory_size_v2",
        trt.IExecutionContext: "set_tensor_address set_device_memory execute_async_v3",
        trt.IRuntimeConfig: "set_execution_context_allocation_strategy cuda_graph_strategy create_runtime_cache "
        "set_runtime_cache",
        trt.IRuntimeCache: "serialize deserialize",
        trt.CudaGraphStrategy: "WHOLE_GRAPH_CAPTURE",
        trt.ExecutionContextAllocationStrategy: "USER_MANAGED",
    }
    assert [(kind, name) for kind, names in called.items() for name in names.split() if not hasattr(kind, name)] == []
