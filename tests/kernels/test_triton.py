"""The Triton kernels, in the interpreter on CPU tensors: float64 oracle, odd shapes, and what torch asks of an op."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

import prism_kernels
import pytest
import torch
from prism_kernels import (
    KernelBackendError,
    KernelInputError,
    LinearUpdate,
    UpdateNoise,
    counter_noise,
    energy,
    group_norm_silu,
    guided_combine,
    guided_step,
    view,
)
from prism_kernels._registry import OPS
from prism_kernels._triton import energy as _energy
from prism_kernels.testing import assert_close

from tests.kernels.cases import DTYPES, combine_oracle, energy_oracle, random, step_oracle


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (7, 10), (3, 101), (2, 1000), (0, 5), (1, 33000)], ids=str)
def test_energy(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """33,000 classes are more than a block: online softmax."""
    n, k = shape
    logits, labels = random(n, k, dtype=dtype) * 5, torch.arange(n) % k
    value, gradient = energy(logits, labels, -0.7, 1.3, 1.7)
    expected_value, expected_gradient = energy_oracle(logits, labels, -0.7, 1.3, 1.7)
    assert value.dtype == gradient.dtype == torch.float32
    assert_close("energy", value, expected_value, reduction=k, scale=10.0)
    assert_close("energy", gradient, expected_gradient, reduction=k)


@pytest.mark.usefixtures("interpreter")
def test_energy_of_strided_rows_and_large_logits() -> None:
    wide = random(4, 40)
    labels = torch.tensor([1, 0, 2, 3])
    for strided in (wide[:, 3:20], wide.t()[:4]):
        got = energy(strided, labels, -1.0, 1.0, 2.0)
        for part, expected in zip(got, energy_oracle(strided, labels, -1.0, 1.0, 2.0), strict=True):
            assert_close("energy", part, expected, reduction=40, scale=10.0)
    large = torch.tensor([[60000.0, -60000.0, 0.0]], dtype=torch.float16)
    assert all(t.isfinite().all() for t in energy(large, torch.tensor([1]), -1.0, 1.0, 1.0))


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 4, 13, 11), (0, 4, 8, 8), (1, 4, 65, 65)], ids=str)
def test_guided_step_with_an_update(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """16,900 elements a sample are more than a block."""
    denoised, gradient, latents, previous = (random(*shape, dtype=dtype, seed=s) for s in range(4))
    correction, active = torch.full(shape[:1], 0.5), torch.arange(shape[0]) != 1
    update = LinearUpdate(latents, (0.9, 0.4, -0.2), previous)
    got = guided_step(denoised, gradient, correction, active, 0.3, update=update)
    count = denoised[:1].numel()
    assert got.latents is not None
    assert got.finite is not None
    assert got.healthy.all()
    assert got.finite.all()
    assert_close("guided_step", got.denoised, step_oracle(denoised, gradient, correction, active, 0.3), count, 5.0)
    stepped = 0.9 * latents.double() + 0.4 * got.denoised.double() - 0.2 * previous.double()
    assert_close("guided_step", got.latents, stepped, scale=5.0)


@pytest.mark.parametrize("size", [5, 65])
def test_reference_and_kernels_agree(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, z, old = (random(2, 4, size, size, seed=s) for s in range(3))
    flags, logits = torch.tensor([True, False]), random(2, 50)
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def everything() -> list[torch.Tensor | None]:
        clean, squares = guided_combine(z, torch.cat([x, old]), 3.0, 0.6, 0.8, "epsilon")
        update = LinearUpdate(z, (0.9, 0.4, -0.2), old)
        step = guided_step(clean, x, squares.sqrt(), flags, 0.3, update=update)
        return [clean, squares, *step, *energy(logits, torch.tensor([3, 4]), -1.0, 1.0, 1.5)]

    with prism_kernels.use_backend("reference"):
        expected = everything()
    with prism_kernels.use_backend("triton"):
        got = everything()
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("size", [5, 65])
def test_bad_values_are_flagged_and_touch_nobody(bad: float, size: int) -> None:
    denoised, gradient, latents = (random(3, 4, size, size, seed=s) for s in range(3))
    correction, active = torch.ones(3), torch.ones(3, dtype=torch.bool)
    gradient[1, 0, 0, 0], latents[2, 3, 4, 4] = bad, float("nan")
    got = guided_step(denoised, gradient, correction, active, 0.3, update=LinearUpdate(latents, (0.9, 0.4, 0.0)))
    assert got.finite is not None
    assert got.healthy.tolist() == [True, False, True]
    assert got.finite.tolist() == [True, True, False]
    assert torch.equal(got.denoised[1], denoised[1])
    alone = guided_step(denoised, gradient, correction, active, 0.3)
    assert torch.equal(alone.denoised, got.denoised)
    assert alone.latents is None


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 4, 25, 23), (0, 4, 8, 8)], ids=str)
def test_guided_combine(shape: tuple[int, ...], kind: str) -> None:
    z, prediction = random(*shape), random(2 * shape[0], *shape[1:], dtype=torch.float16, seed=1)
    got = guided_combine(z, prediction, 3.0, 0.6, 0.8, kind)  # type: ignore[arg-type]
    expected, squares = combine_oracle(z, prediction, 3.0, 0.6, 0.8, kind)
    assert_close("guided_combine", got.denoised, expected, scale=10.0)
    assert_close("guided_combine", got.correction_squares, squares, reduction=z[:1].numel())


def _calls() -> dict[str, tuple[object, ...]]:
    x, flags, indices = random(2, 4, 3, 3), torch.ones(2, dtype=torch.bool), torch.tensor([0, 9])
    step = (x, x, torch.ones(2), flags, 0.3, 1e4)
    boxes, four = torch.tensor([[0.0, 3, 0, 3, 0], [1, 2, 0, 2, 1]]), random(4)
    leaf, last = x.clone().requires_grad_(), x.to(memory_format=torch.channels_last)
    return {
        "counter_noise": (-7, indices, 3, 10, torch.float32),
        "energy": (random(2, 5), torch.tensor([0, 4]), -1.0, 1.0, 1.5),
        "group_norm_silu": (leaf, four, four, 2, 1e-6),
        "group_norm_silu_backward": (x, last, four, four, random(2, 2), random(2, 2), 2),
        "guided_combine": (x, random(4, 4, 3, 3), 3.0, 1.25, -0.75),
        "guided_step": step,
        "guided_solver_step": (*step, x, None, 0.9, 0.4, 0.0, indices, 7, 3, 0.2),
        "view": (leaf, boxes, 5, four, four),
        "view_adjoint": (leaf, boxes, 4, 6, four),
    }


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("name", list(_calls()))
def test_opcheck(name: str) -> None:
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(getattr(torch.ops.prism_kernels, name).default, _calls()[name], test_utils=tests)


@pytest.mark.parametrize("backend", ["auto", "reference", "triton"])
def test_no_graph_break(backend: prism_kernels._backend.Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    torch.compiler.reset()
    x, active, indices = random(2, 4, 3, 3), torch.ones(2, dtype=torch.bool), torch.tensor([0, 9])
    boxes, four = torch.tensor([[0.0, 3, 0, 3, 0], [1, 2, 0, 2, 1]]), random(4)

    def step(logits: torch.Tensor, labels: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        value, _ = energy(logits, labels, -1.0, 1.0, 1.5)
        clean, squares = guided_combine(x, torch.cat([x, 2 * x]), 3.0, 0.6, 0.8, "epsilon")
        noise = UpdateNoise(2**64 - 1, indices, 3, 0.2)
        stepped = guided_step(
            clean, x, squares.sqrt(), active, 0.3, update=LinearUpdate(x, (0.9, 0.4, 0.0), None, noise)
        )
        assert stepped.latents is not None
        seen = view(group_norm_silu(image, four, four, 2), boxes, 5, four, four)
        return value, stepped.denoised, stepped.latents, seen, counter_noise(3, indices, 1, (5, 3))

    inputs = random(2, 5), torch.tensor([0, 4]), random(2, 4, 3, 3, seed=2).requires_grad_()
    results = []
    with prism_kernels.use_backend(backend):
        for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
            out = run(*inputs)
            results.append([*out, *torch.autograd.grad(out[3].square().sum(), inputs[2])])
    for part, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(part, expected)


def test_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    labels = torch.tensor([0, 1])
    assert "TRITON_INTERPRET=1" in prism_kernels.reasons("energy", random(2, 5))[0]
    assert any("float64" in r for r in prism_kernels.reasons("energy", random(2, 5).double()))
    assert any("requires a gradient" in r for r in prism_kernels.reasons("energy", random(2, 5).requires_grad_()))
    differentiable = [name for name, spec in OPS.items() if spec.differentiable]
    assert differentiable == ["group_norm_silu", "view"]
    assert not any("gradient" in r for r in prism_kernels.reasons("view", random(2, 5).requires_grad_()))
    assert "one device" in prism_kernels.reasons("energy", random(2, 5), labels.to("meta"))[0]
    with prism_kernels.use_backend("triton"), pytest.raises(KernelBackendError, match=r"\(2, 5\) .*lie on cpu"):
        energy(random(2, 5), labels, -1.0, 1.0, 1.0)
    assert prism_kernels.explain().count("\n") == len(OPS)


@pytest.mark.parametrize("interpret", ["0", "1"])
def test_without_inputs_the_gpu_is_meant(interpret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (reason,) = prism_kernels.reasons("energy")
    assert reason.startswith("no CUDA device; use one")
    assert prism_kernels.explain().count("reference: no CUDA device") == len(OPS)
    with prism_kernels.use_backend("triton"):  # which takes CPU tensors where they are interpreted
        assert prism_kernels.explain().count("reference: ") == (0 if interpret == "1" else len(OPS))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert prism_kernels.reasons("energy") == [
        "the GPU is older than compute capability 8.0; use the reference backend"
    ]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert prism_kernels.reasons("energy") == []


def test_the_interpreter_runs_here() -> None:
    assert prism_kernels.interpreter_reasons() == []


def test_the_interpreter_runs_where_triton_was_imported_for_it() -> None:
    code = "import prism_kernels; print(prism_kernels.interpreter_reasons())"
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_why_the_interpreter_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> NoReturn:
        raise AttributeError("no builder\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(_energy, "launch", broken)
        (reason,) = prism_kernels.interpreter_reasons()
        assert reason == (
            "triton's interpreter does not run (AttributeError: no builder); reinstall torch and its triton"
        )
    with monkeypatch.context() as patch:
        patch.setattr(_energy, "launch", lambda *arguments: (torch.zeros(1), torch.zeros(1, 2)))
        assert prism_kernels.interpreter_reasons()[0].startswith("triton's interpreter computes a wrong energy; ")
    monkeypatch.setattr(prism_kernels._backend, "_HAS_TRITON", False)
    assert prism_kernels.interpreter_reasons() == ["triton is not installed; pip install triton"]
    assert "triton is not installed; pip install triton" in prism_kernels.reasons("energy")


def test_an_unknown_backend_or_operator_is_refused() -> None:
    with pytest.raises(KernelInputError, match="'cuda'"), prism_kernels.use_backend("cuda"):  # type: ignore[arg-type]
        pass
    with pytest.raises(KernelInputError, match="'softmax'"):
        prism_kernels.reasons("softmax")


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_energy_on_the_gpu(dtype: torch.dtype) -> None:
    logits, labels = random(64, 1000, dtype=dtype), torch.arange(64)
    got = energy(logits.cuda(), labels.cuda(), -1.0, 1.0, 1.5)
    for part, expected in zip(got, energy_oracle(logits, labels, -1.0, 1.0, 1.5), strict=True):
        assert_close("energy", part.cpu(), expected, reduction=1000, scale=10.0)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("size", [64, 128])
def test_guided_operators_on_the_gpu(size: int) -> None:
    z, gradient, previous = (random(2, 4, size, size, seed=s) for s in range(3))
    prediction, active = random(4, 4, size, size, seed=3), torch.tensor([True, False])
    results = []
    for device in ("cpu", "cuda"):
        x, g, old, p, flags = (t.to(device) for t in (z, gradient, previous, prediction, active))
        clean, squares = guided_combine(x, p, 3.0, 0.6, 0.8, "v_prediction")
        rms = (squares / x[0].numel()).sqrt()
        update = LinearUpdate(x, (0.9, 0.4, -0.2), old)
        results.append([clean, squares, *guided_step(clean, g, rms, flags, 0.3, update=update)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-5, atol=1e-4)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
def test_differentiable_operators_on_the_gpu(order: torch.memory_format) -> None:
    image, boxes = random(2, 64, 96, 80), torch.tensor([[0.0, 96, 0, 80, 1], [8, 60, 20, 50, 0]])
    weight, bias = random(64, seed=1), random(64, seed=2)
    results = []
    for device in ("cpu", "cuda"):
        leaf = image.to(device).contiguous(memory_format=order).requires_grad_()
        y = group_norm_silu(leaf, weight.to(device), bias.to(device), 32)
        seen = view(y, boxes.to(device), 56, weight.to(device), bias.to(device))
        noise = counter_noise(2**63, torch.tensor([4, 2**40], device=device), 9, (4, 33))
        results.append([y.detach(), seen.detach(), *torch.autograd.grad(seen.square().sum(), leaf), noise])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-4, atol=1e-4)
