"""The eager gradient engine through decode, view, normalise and teacher, against finite differences in float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import get_args

import pytest
import torch
from prism_engines.backends.eager import EagerEngine, EagerGradientEngine
from prism_kernels import view_matrices
from torch import Tensor, nn

from prism_fast.config import GuidanceConfig, Objective
from prism_fast.guidance.network import (
    StaticLatentClassifier,
    energy_gradient_engine,
    energy_of,
)
from prism_fast.guidance.objectives import objective_of
from prism_fast.guidance.view import view_boxes
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.models.diffusion import LatentDecoder, load_diffusion
from prism_fast.sampling.noise import view_draws
from tests.tiny import make_diffusion, make_teacher

Parts = tuple[LatentDecoder, Classifier]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("models")
    model = load_diffusion(make_diffusion(folder / "diffusion"))
    return LatentDecoder(model), load_classifier(str(make_teacher(folder / "teacher")))


def _inputs(n: int) -> tuple[Tensor, Tensor, Tensor]:
    z = torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return z, torch.arange(n) % 3, view_boxes(view_draws(0, range(n), 2), (0.6, 1.0), True, (16, 16))


def _double(decoder: LatentDecoder, teacher: Classifier, config: GuidanceConfig) -> EagerGradientEngine:
    """The traced form in float64: the fused view computes in float32."""
    return EagerGradientEngine(StaticLatentClassifier(decoder, teacher).double(), energy_of(config))


def _double_inputs(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z, labels, boxes = _inputs(n)
    rows, columns = view_matrices(boxes, (16, 16), 32)
    return z.double(), labels, rows.double(), columns.double()


@pytest.mark.parametrize("objective", get_args(Objective))
def test_the_gradient_is_the_slope_of_the_energy(parts: Parts, objective: Objective) -> None:
    """Directional central differences; only the cotangent passes through float32, which leaves a relative 1e-6.

    The step is small because the networks have kinks (ReLU, clamp), which a wider one would straddle.
    """
    config = GuidanceConfig(objective=objective, temperature=1.3)
    form, (decoder, teacher) = objective_of(config), copy.deepcopy(parts)
    engine = _double(decoder, teacher, config)
    module = engine.module
    z, labels, rows, columns = _double_inputs(3)

    def value(x: Tensor) -> Tensor:
        f: Tensor = module(x, rows, columns)
        own = f.gather(1, labels[:, None])[:, 0]
        return form.class_weight * own + form.lse_weight * (f / form.temperature).logsumexp(1)

    energy, gradient, logits = engine.run(z, labels, rows, columns)
    torch.testing.assert_close(energy.double(), value(z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, module(z, rows, columns))
    generator = torch.Generator().manual_seed(9)
    for _ in range(4):
        direction = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        slope = (value(z + 1e-7 * direction) - value(z - 1e-7 * direction)) / 2e-7
        projected = (gradient * direction).flatten(1).sum(1)
        size = gradient.flatten(1).norm(dim=1) * direction.flatten(1).norm(dim=1)
        assert ((slope - projected).abs() / size).max() < 1e-5
    assert gradient.flatten(1).norm(dim=1).min() > 0


def test_float32_is_near_float64(parts: Parts) -> None:
    config = GuidanceConfig(objective="cross_entropy")
    _, gradient, _ = energy_gradient_engine(*parts, config).run(*_inputs(3))
    _, exact, _ = _double(*copy.deepcopy(parts), config).run(*_double_inputs(3))
    error = (gradient - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert gradient.dtype == torch.float32
    assert error.max() < 1e-3


def test_samples_do_not_influence_each_other(parts: Parts) -> None:
    engine = energy_gradient_engine(*parts, GuidanceConfig(objective="cross_entropy"))
    z, labels, boxes = _inputs(3)
    clean = engine.run(z, labels, boxes)
    z[1] = float("nan")
    spoiled = engine.run(z, labels, boxes)
    for before, after in zip(clean, spoiled, strict=True):
        assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not spoiled[1][1].isfinite().any()


def test_nothing_is_left_behind(parts: Parts) -> None:
    """No graph, no gradient on the caller's tensors or on the weights, and it works under no_grad."""
    engine = energy_gradient_engine(*parts, GuidanceConfig())
    z, labels, boxes = _inputs(2)
    with torch.no_grad():
        outputs = engine.run(z, labels, boxes)
    assert not any(out.requires_grad for out in outputs)
    assert z.grad is None
    assert not z.requires_grad
    assert all(p.grad is None and not p.requires_grad for p in engine.module.parameters())
    assert not engine.module.training


def test_an_engine_is_a_context_and_gives_tuples() -> None:
    with EagerEngine(nn.Linear(2, 3), "linear") as engine:
        (out,) = engine.run(torch.zeros(4, 2))
    assert out.shape == (4, 3)
    assert engine.name == "linear"


def test_the_decoder_gives_pictures(parts: Parts, tmp_path: Path) -> None:
    images = parts[0](_inputs(2)[0] * 5)
    assert images.shape == (2, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
