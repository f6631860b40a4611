"""The energy operator against a float64 oracle, finite differences, odd shapes and bad input."""

from __future__ import annotations

from typing import get_args

import prism_kernels
import pytest
import torch
from prism_kernels import KernelInputError, energy
from torch import Tensor

from prism_fast.config import GuidanceConfig, Objective
from prism_fast.guidance.objectives import EnergyForm, objective_of

OBJECTIVES = get_args(Objective)
# The arithmetic is float32 whatever the input's dtype, and the oracle reads the rounded input: one tolerance for all.
RTOL, ATOL = 1e-5, 2e-6


def _form(objective: str) -> EnergyForm:
    return objective_of(GuidanceConfig(objective=objective, temperature=1.7, second_temperature=6.0))


def _formula(objective: str, f: Tensor, y: Tensor) -> Tensor:
    """Each energy as its paper writes it, T1 = 1.7 and T2 = 6; in float64, without the three-number form."""
    own = f.gather(1, y[:, None])[:, 0]
    if objective == "free_energy":
        return -1.7 * (f / 1.7).exp().sum(1).log()
    if objective == "cross_entropy":
        return -((f / 1.7).exp() / (f / 1.7).exp().sum(1, keepdim=True)).gather(1, y[:, None])[:, 0].log()
    if objective == "joint":
        return -own
    return -own / 1.7 + (f / 6.0).exp().sum(1).log()


def _oracle(objective: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    f = logits.double().detach().requires_grad_(True)
    value = _formula(objective, f, labels)
    (gradient,) = torch.autograd.grad(value.sum(), f)
    return value.detach(), gradient


def _inputs(n: int, k: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(97 * n + k)
    return (
        (torch.randn(n, k, generator=generator) * 5).to(dtype),
        torch.randint(0, k, (n,), generator=generator),
    )


def _run(objective: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    form = _form(objective)
    return energy(logits, labels, form.class_weight, form.lse_weight, form.temperature)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (7, 16), (13, 101), (64, 1000)], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_matches_the_float64_oracle(objective: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits, labels = _inputs(*shape, dtype)
    value, gradient = _run(objective, logits, labels)
    expected_value, expected_gradient = _oracle(objective, logits, labels)
    assert value.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected_value, rtol=RTOL, atol=ATOL)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradient_is_the_slope_of_the_value(objective: str) -> None:
    """Central differences of the operator's own values; h = 0.02 leaves about 1e-4 of truncation and rounding."""
    logits, labels = _inputs(3, 5)
    logits, h = logits / 5, 0.02
    _, gradient = _run(objective, logits, labels)
    slopes = torch.empty_like(gradient)
    for j in range(logits.shape[1]):
        bump = torch.zeros(logits.shape[1])
        bump[j] = h
        up, down = (_run(objective, logits + sign * bump, labels)[0] for sign in (1, -1))
        slopes[:, j] = (up - down) / (2 * h)
    torch.testing.assert_close(gradient, slopes, rtol=0, atol=3e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_non_contiguous_and_empty(objective: str) -> None:
    logits, labels = _inputs(11, 7)
    strided = torch.stack([logits, logits + 1], dim=2).transpose(0, 1)[..., 0].t()
    assert not strided.is_contiguous()
    for got, expected in zip(_run(objective, strided, labels), _run(objective, logits, labels), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    value, gradient = _run(objective, logits[:0], labels[:0])
    assert value.shape == (0,)
    assert gradient.shape == (0, 7)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_do_not_influence_each_other(objective: str) -> None:
    logits, labels = _inputs(6, 10)
    spoiled = logits.clone()
    spoiled[2] = float("nan")
    keep = torch.arange(6) != 2
    for got, expected in zip(_run(objective, spoiled, labels), _run(objective, logits, labels), strict=True):
        assert torch.equal(got[keep], expected[keep])
        assert not got[2].isfinite().all()


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[60000.0, -60000.0, 0.0]], dtype=torch.float16)
    for objective in OBJECTIVES:
        value, gradient = _run(objective, logits, torch.tensor([1]))
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_the_input_is_not_changed() -> None:
    logits, labels = _inputs(4, 3)
    before = logits.clone()
    _run("cross_entropy", logits, labels)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    ("logits", "labels", "temperature", "words"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), 1.0, r"\(3,\)"),
        (torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64), 1.0, r"\(2, 3, 4\)"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), 1.0, r"\(2, 3\), \(3,\)"),
        (torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64), 1.0, r"\(2, 1\)"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int32), 1.0, "int32"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), 1.0, "int64"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 0.0, "temperature"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), -1.0, "-1.0"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), float("nan"), "nan"),
    ],
)
def test_bad_input(logits: Tensor, labels: Tensor, temperature: float, words: str) -> None:
    with pytest.raises(KernelInputError, match=words):
        energy(logits, labels, -1.0, 1.0, temperature)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_refused(label: int) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        energy(torch.zeros(1, 3), torch.tensor([label]), -1.0, 1.0, 1.0)


def test_public_names() -> None:
    assert prism_kernels.__all__ == [
        "GuidedCombine",
        "GuidedStep",
        "KernelBackendError",
        "KernelInputError",
        "LinearUpdate",
        "UpdateNoise",
        "counter_noise",
        "energy",
        "explain",
        "group_norm_silu",
        "guided_combine",
        "guided_step",
        "interpreter_reasons",
        "reasons",
        "use_backend",
        "view",
        "view_adjoint",
        "view_matrices",
    ]
    assert all(hasattr(prism_kernels, name) for name in prism_kernels.__all__)
