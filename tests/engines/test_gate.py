"""The gate: numbers of known values, and everything that must not pass."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from prism_engines import gate as gating
from prism_engines.backends.eager import EagerEngine, EagerGradientEngine, InChunks
from prism_engines.errors import GateError
from prism_engines.gate import (
    GRADIENT_THRESHOLDS,
    THRESHOLDS,
    GateResult,
    compare,
    gate,
    median_s,
    sample_cosines,
    sample_errors,
)
from prism_engines.lowerings import LOWERINGS
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn

from tests.engines import tiny
from tests.engines.gradients import energy

_aten: Any = torch.ops.aten
ROWS = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0], [-5.0, 12.0]])


class Fixed:
    """An engine that gives what it was told to."""

    def __init__(self, name: str, *outputs: Tensor) -> None:
        self.name, self.outputs, self.runs = name, outputs, 0

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.runs += 1
        return self.outputs


def judge(got: Tensor, want: Tensor, precision: str = "fp32", timed: bool = False) -> GateResult:
    return gate(Fixed("made", got), Fixed("eager", want), [()], ("y",), precision, "here", timed)  # type: ignore[arg-type]


def test_errors_are_relative_to_each_sample() -> None:
    got = ROWS + torch.tensor([[0.0, 5.0], [0.0, 0.0], [0.0, 0.5], [13.0, 0.0]])
    assert sample_errors(got, ROWS).tolist() == pytest.approx([1.0, 0.0, 0.5, 1.0])


def test_cosines_are_those_of_each_sample() -> None:
    got = torch.tensor([[-3.0, -4.0], [2.0, 0.0], [7.0, 0.0], [-5.0, 12.0]])
    assert sample_cosines(got, ROWS).tolist() == pytest.approx([-1.0, 0.0, 1.0, 1.0])


def test_axes_of_a_sample_count_together() -> None:
    x = torch.randn(3, 2, 4, 5)
    assert torch.equal(sample_errors(x * 1.1, x), sample_errors(x.flatten(1) * 1.1, x.flatten(1)))
    assert sample_cosines(x * 2, x).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_number_a_sample_is_compared_with_the_batch(shape: tuple[int, ...]) -> None:
    want, got = torch.tensor([3.0, 4.0, 0.0]).view(shape), torch.tensor([3.0, 4.0, 1.0]).view(shape)
    assert sample_errors(got, want).tolist() == pytest.approx([0.0, 0.0, 1 / math.sqrt(25 / 3)])
    assert sample_cosines(got, want).tolist() == pytest.approx([25 / (5 * math.sqrt(26))])


def test_a_sample_of_zeros_has_a_finite_error() -> None:
    errors = sample_errors(torch.zeros(2, 3), torch.zeros(2, 3))
    assert errors.tolist() == [0.0, 0.0]


def test_an_engine_that_is_right_passes_with_its_numbers() -> None:
    result = judge(ROWS.clone(), ROWS)
    assert (result.rel_error, result.worst_rel_error, result.cosine) == pytest.approx((0.0, 0.0, 1.0))
    assert (result.eager_s, result.engine_s, result.speedup, result.gated_through) == (None, None, None, "here")


def test_the_median_forgives_one_sample_and_reports_it() -> None:
    got = ROWS.clone()
    got[2] = torch.tensor([0.0, 1.0])
    result = judge(got, ROWS)
    assert result.rel_error == pytest.approx(0.0)
    assert result.worst_rel_error == pytest.approx(math.sqrt(2))


def test_half_of_the_samples_wrong_is_not_forgiven() -> None:
    got = ROWS.clone()
    got[:2] *= 2  # the direction is right: the cosine does not tell
    with pytest.raises(GateError, match=r"relative error 0\.5 "):
        judge(got, ROWS)


def test_the_message_holds_the_numbers() -> None:
    with pytest.raises(GateError) as caught:
        judge(ROWS * 1.25, ROWS)
    assert str(caught.value) == (
        "made (fp32): output y has relative error 0.25 (at most 0.001), cosine 1.00000 (at least 0.99999); "
        "nothing was stored"
    )


@pytest.mark.parametrize("precision", THRESHOLDS)
def test_the_largest_error_allowed(precision: str) -> None:
    limit = THRESHOLDS[precision].rel_error  # type: ignore[index]
    judge(ROWS.double() * (1 + 0.99 * limit), ROWS.double(), precision)
    with pytest.raises(GateError, match=re.escape(f"(at most {limit:g})")):
        judge(ROWS.double() * (1 + 1.01 * limit), ROWS.double(), precision)


def test_thresholds_themselves_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(THRESHOLDS, "fp32", gating.Threshold(rel_error=0.5, cosine=0.6))
    assert judge(ROWS * 1.5, ROWS).rel_error == 0.5
    with pytest.raises(GateError):
        judge(ROWS * 1.5000002, ROWS)


@pytest.mark.parametrize("precision", THRESHOLDS)
def test_the_smallest_cosine_allowed(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = THRESHOLDS[precision].cosine  # type: ignore[index]
    monkeypatch.setitem(THRESHOLDS, precision, gating.Threshold(rel_error=9.0, cosine=limit))  # type: ignore[misc]

    def turned(factor: float) -> Tensor:
        angle = math.acos(1 - factor * (1 - limit))
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return ROWS.double() @ turn.double()

    judge(turned(0.9), ROWS.double(), precision)
    with pytest.raises(GateError, match=re.escape(f"(at least {limit:g})")):
        judge(turned(1.1), ROWS.double(), precision)


def test_a_gradient_has_thresholds_of_its_own() -> None:
    assert GRADIENT_THRESHOLDS.keys() == THRESHOLDS.keys()
    for precision, limit in GRADIENT_THRESHOLDS.items():
        assert limit.rel_error > THRESHOLDS[precision].rel_error
        assert limit.cosine < THRESHOLDS[precision].cosine
        error = 0.5 * (limit.rel_error + THRESHOLDS[precision].rel_error)
        engine, oracle = Fixed("made", ROWS * (1 + error)), Fixed("eager", ROWS)
        gate(engine, oracle, [()], ("gradient",), precision, "here", timed=False)  # type: ignore[arg-type]
        with pytest.raises(GateError, match="output prediction has relative error"):
            gate(engine, oracle, [()], ("prediction",), precision, "here", timed=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("thresholds", [THRESHOLDS, GRADIENT_THRESHOLDS], ids=["values", "gradients"])
def test_thresholds_widen_with_precision(thresholds: dict[str, gating.Threshold]) -> None:
    order = [thresholds[p] for p in ("fp32", "fp16", "bf16")]
    assert [t.rel_error for t in order] == sorted(t.rel_error for t in order)
    assert [t.cosine for t in order] == sorted((t.cosine for t in order), reverse=True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    got = ROWS.clone()
    got[3, 1] = value
    with pytest.raises(GateError, match="made: output y holds NaN or infinity where eager's is finite"):
        judge(got, ROWS)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_oracle_that_is_not_finite_judges_nothing(value: float) -> None:
    want = ROWS.clone()
    want[0, 0] = value
    for got in (ROWS, want):
        with pytest.raises(GateError, match="eager's output y holds NaN or infinity"):
            judge(got, want)


@pytest.mark.parametrize("shade", [0.0, 0.5, 1.0])
def test_a_constant_image_is_refused(shade: float) -> None:
    image = torch.rand(2, 3, 4, 4)
    with pytest.raises(GateError, match="made: output y is constant where eager's is not"):
        judge(torch.full_like(image, shade), image)


def test_a_constant_image_is_right_where_eager_gives_it() -> None:
    black = torch.full((2, 3, 4, 4), 0.25)
    assert judge(black.clone(), black).rel_error == 0.0


def test_a_batch_of_one_number_is_not_called_constant() -> None:
    assert judge(torch.tensor([2.0]), torch.tensor([2.0])).rel_error == 0.0


@pytest.mark.parametrize("got", [ROWS[:3], ROWS.t(), ROWS[:, :1], ROWS[None]], ids=lambda x: str(tuple(x.shape)))
def test_another_shape_is_refused(got: Tensor) -> None:
    with pytest.raises(GateError, match=re.escape(f"made: output y is {tuple(got.shape)}, eager gives (4, 2)")):
        judge(got, ROWS)


def test_a_missing_output_is_refused() -> None:
    with pytest.raises(GateError, match="made: it has 1 outputs, eager has 2"):
        compare(Fixed("made", ROWS), Fixed("eager", ROWS, ROWS), [()], ("a", "b"))  # type: ignore[arg-type]


def test_every_output_of_every_input_is_compared() -> None:
    class Scaled(Fixed):
        def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return ROWS, ROWS * inputs[0]

    given = [(torch.tensor(1.5),), (torch.tensor(1.0),)]
    found = compare(Scaled("made"), Fixed("eager", ROWS, ROWS), given, ("a", "b"))  # type: ignore[arg-type]
    assert [one.name for one in found] == ["a", "b", "a", "b"]
    assert [one.rel_error for one in found] == pytest.approx([0.0, 0.5, 0.0, 0.0])


def test_speed_is_a_median_after_one_call_that_does_not_count() -> None:
    engine = Fixed("made", ROWS)
    assert median_s(engine.run, repeats=3) >= 0
    assert engine.runs == 4


def test_numbers_hold_the_speedup() -> None:
    result = GateResult(0.1, 0.2, 0.9, eager_s=3.0, engine_s=1.5, gated_through="onnxruntime")
    assert result.speedup == 2.0
    assert result.numbers() == {
        "rel_error": 0.1,
        "worst_rel_error": 0.2,
        "cosine": 0.9,
        "eager_s": 3.0,
        "engine_s": 1.5,
        "gated_through": "onnxruntime",
        "speedup_vs_eager": 2.0,
    }
    timed = judge(ROWS.clone(), ROWS, timed=True)
    assert timed.eager_s is not None
    assert timed.engine_s is not None


def test_an_eager_engine_passes_its_own_gate() -> None:
    engine, oracle = (EagerEngine(tiny.net(), name) for name in ("one", "two"))
    inputs = [tiny.batch(tiny.BATCH, seed) for seed in (1, 2)]
    with torch.no_grad():
        assert gate(engine, oracle, inputs, ("features", "logits"), "fp32", "eager", timed=False).rel_error == 0.0


def _gelu(x: Tensor) -> Tensor:
    return x * (1.702 * x).sigmoid()


def _gelu_backward(g: Tensor, x: Tensor) -> Tensor:
    return g * (1.702 * x).sigmoid()


def _convolution_backward(g: Tensor, *arguments: Any) -> Any:
    return LOWERINGS[_aten.convolution_backward.default](g.flip(3), *arguments)


BROKEN = {
    "gelu": (_aten.gelu.default, _gelu),
    "gelu_backward": (_aten.gelu_backward.default, _gelu_backward),
    "convolution_backward": (_aten.convolution_backward.default, _convolution_backward),
}


@pytest.mark.parametrize("name", [None, *BROKEN])
def test_a_broken_lowering_is_caught(name: str | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 4, 3, 2), nn.Flatten())
    net.eval().requires_grad_(False)
    inputs = torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    lowerings = {**LOWERINGS, **dict([BROKEN[name]])} if name else LOWERINGS
    graph = trace_value_and_gradient(net, energy, inputs, lowerings)
    engine, oracle = EagerEngine(graph, "made"), EagerGradientEngine(net, energy)
    names = ("energy", "gradient", "logits")
    if name is None:
        assert gate(engine, oracle, [inputs], names, "fp32", "eager").rel_error < 1e-5
        return
    with pytest.raises(
        GateError,
        match=r"made \(fp32\): output \w+ has relative error [\d.e+-]+ \(at most 0\.00[15]\), cosine -?[\d.]+",
    ):
        gate(engine, oracle, [inputs], names, "fp32", "eager")


def test_a_gpu_is_waited_for_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting work on a GPU returns at once: without waiting, the engine that launches fastest would seem fastest."""
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append(f"wait for {device}"))
    median_s(lambda: events.append("run"), repeats=2, device=torch.device("cuda:1"))
    assert events == ["run", *["wait for cuda:1", "run", "wait for cuda:1"] * 2]
    events.clear()
    median_s(lambda: events.append("run"), repeats=2, device=torch.device("cpu"))
    assert events == ["run"] * 3


def _precisions() -> tuple[str, str]:
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return torch.backends.cuda.matmul.fp32_precision, conv.fp32_precision


def test_the_oracle_computes_in_ieee_precision_and_the_engine_does_not() -> None:
    seen: dict[str, tuple[str, str]] = {}

    class Noting(Fixed):
        def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            seen[self.name] = _precisions()
            return super().run(*inputs)

    before = _precisions()
    compare(Noting("made", ROWS), Noting("eager", ROWS), [()], ("y",))  # type: ignore[arg-type]
    assert seen == {"made": before, "eager": ("ieee", "ieee")}
    assert _precisions() == before
    with pytest.raises(ValueError, match="stop"), gating.ieee_float32():
        raise ValueError("stop")
    assert _precisions() == before


def test_a_gradient_in_chunks_is_the_gradient() -> None:
    class Counted(Fixed):
        def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            self.runs += 1
            return tuple(2 * x for x in inputs)

    engine = Counted("gradient")
    chunked = InChunks(engine, 2)  # type: ignore[arg-type]
    x, labels = torch.randn(5, 3), torch.arange(5)
    found = chunked.run(x, labels)
    assert engine.runs == 3
    assert all(torch.equal(a, 2 * b) for a, b in zip(found, (x, labels), strict=True))
    assert (chunked.name, len(chunked.run(x[:2], labels[:2]))) == ("gradient", 2)
