"""What compiled engines share: padding, chunks, and refusals that name the input."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from prism_engines.backends.padded import IdleHandles, PaddedEngine, pad_rows
from prism_engines.errors import EngineInputError
from torch import Tensor

from tests.engines import tiny


class Recorder(PaddedEngine):
    """Sums each row and keeps the inputs it was given."""

    seen: list[tuple[Tensor, ...]]

    def _load(self) -> list[str]:
        self.seen = []
        return ["loaded"]

    def _run_full(self, handle: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.seen.append(inputs)
        x, labels = inputs
        return (x.flatten(1).sum(1) + labels,)


def expected(x: Tensor, labels: Tensor) -> Tensor:
    return x.flatten(1).sum(1) + labels


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 11])
def test_any_number_of_rows(rows: int) -> None:
    inputs = tiny.batch(rows)
    with Recorder(tiny.spec()) as engine:
        (out,) = engine.run(*inputs)
        torch.testing.assert_close(out, expected(*inputs), rtol=0, atol=0)
        assert [len(x) for x, _ in engine.seen] == [tiny.BATCH] * -(-rows // tiny.BATCH)


def test_padding_repeats_the_last_row() -> None:
    assert pad_rows(torch.tensor([[1, 2], [3, 4]]), 4).tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]


def test_the_engine_sees_contiguous_detached_inputs() -> None:
    x, labels = tiny.batch(tiny.BATCH)
    strided = x.transpose(2, 3).requires_grad_(True)
    with Recorder(tiny.spec()) as engine:
        engine.run(strided, labels)
        seen = engine.seen[0][0]
    assert seen.is_contiguous()
    assert not seen.requires_grad


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.zeros(2, 3, 6, 6),), "1 inputs were given, expected 2; pass x, labels"),
        (
            (torch.zeros(2, 3, 6, 7), torch.zeros(2).long()),
            r"input x is float32 \(2, 3, 6, 7\) on cpu, expected float32",
        ),
        ((torch.zeros(2, 3, 6), torch.zeros(2).long()), r"input x is .*expected float32 \(n, 3, 6, 6\)"),
        ((torch.zeros(2, 3, 6, 6), torch.zeros(2)), r"input labels is float32 \(2,\) on cpu, expected int64 \(n,\)"),
        ((torch.zeros(0, 3, 6, 6), torch.zeros(0).long()), "input x is .*with n >= 1"),
        ((torch.zeros(2, 3, 6, 6, device="meta"), torch.zeros(2).long()), "input x is .* on meta, .* on cpu"),
        ((torch.zeros(2, 3, 6, 6), torch.zeros(3).long()), "inputs x, labels have 2, 3 rows, expected one number"),
    ],
)
def test_a_wrong_input_is_named(inputs: tuple[Tensor, ...], message: str) -> None:
    with Recorder(tiny.spec()) as engine, pytest.raises(EngineInputError, match=message) as caught:
        engine.run(*inputs)
    assert "\n" not in str(caught.value)


def test_a_closed_engine_refuses_and_opens_again() -> None:
    engine = Recorder(tiny.spec())
    with pytest.raises(EngineInputError, match="engine tiny is closed"):
        engine.run(*tiny.batch(1))
    with engine:
        engine.run(*tiny.batch(1))
        assert engine.open() is engine
        assert len(engine.seen) == 1, "opening an open engine must not load it again"
    with pytest.raises(EngineInputError, match=r"call open\(\) before run\(\)"):
        engine.run(*tiny.batch(1))


class Busy(PaddedEngine):
    """One handle a stream; each counts who is inside, and all wait until ``together`` runs are."""

    together: threading.Barrier

    def _load(self) -> list[list[int]]:
        self.together = threading.Barrier(self.streams, timeout=20)
        return [[0] for _ in range(self.streams)]

    def _run_full(self, handle: list[int], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        handle[0] += 1
        assert handle == [1], "two runs share a handle"
        self.together.wait()
        handle[0] -= 1
        return (inputs[1],)


@pytest.mark.parametrize("streams", [1, 2])
def test_each_thread_has_a_handle_of_its_own_and_others_wait(streams: int) -> None:
    inputs = tiny.batch(2)
    with Busy(tiny.spec(), streams=streams).open() as engine, ThreadPoolExecutor(4) as pool:
        for (out,) in pool.map(lambda _: engine.run(*inputs), range(8)):
            assert out.equal(inputs[1])


def test_a_failed_run_gives_its_handle_back() -> None:
    class Failing(Recorder):
        def _run_full(self, handle: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            if not inputs[0].any():
                raise RuntimeError("no")
            return super()._run_full(handle, inputs)

    x, labels = tiny.batch(2)
    with Failing(tiny.spec()) as engine:
        with pytest.raises(RuntimeError, match="no"):
            engine.run(torch.zeros_like(x), labels)
        assert engine.run(x, labels)[0].equal(expected(x, labels))


def test_a_stream_gets_back_the_handle_that_it_had() -> None:
    """In turns two streams would wait for each other's runs, though each could have a handle of its own."""
    idle = IdleHandles(["one", "two"])
    first, second = idle.take(7), idle.take(8)
    idle.put(first, 7)
    idle.put(second, 8)
    for _ in range(3):
        for stream, own in ((8, second), (7, first)):
            assert idle.take(stream) == own
            idle.put(own, stream)


def test_a_new_stream_takes_what_nobody_had_and_else_what_rests_longest() -> None:
    idle = IdleHandles(["one", "two", "three"])
    idle.put(idle.take(7), 7)
    assert idle.take(8) == "two"
    idle.put("two", 8)
    assert [idle.take(9), idle.take(10)] == ["three", "one"]


def test_who_finds_no_handle_waits_for_one() -> None:
    idle = IdleHandles(["one"])
    idle.take(None)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(idle.take, None)
        assert not waiting.done()
        idle.put("one", None)
        assert waiting.result(10) == "one"
