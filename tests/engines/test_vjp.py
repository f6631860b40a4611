"""Traced gradients of whole networks against autograd, and what tracing refuses."""

from __future__ import annotations

import copy
from typing import Any

import diffusers
import pytest
import timm
import torch
import torch.nn.functional as F
from prism_engines.backends.eager import EagerGradientEngine
from prism_engines.errors import EngineInputError, UnsupportedOpError
from prism_engines.gate import sample_errors
from prism_engines.primitives import PRIMITIVES
from prism_engines.vjp import trace_value_and_gradient
from torch import Tensor, nn

from prism_fast.compile.parts import Parts
from prism_fast.compile.probes import real_inputs
from prism_fast.config import load_config
from prism_fast.guidance.network import StaticLatentClassifier, energy_of
from prism_fast.models.bundled import assets
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.engines.gradients import assert_same, energy, image, operators, randomise
from tests.engines.test_lowerings import Attention
from tests.engines.tracing import trace_forward
from tests.tiny import autoencoder_kl, autoencoder_tiny


class Small(nn.Module):
    """Convolutions, a strided one too, three norms, attention and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.mix, self.groups = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.GroupNorm(2, 8)
        self.attention, self.layer = Attention(), nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm(self.stem(x)))
        h = h + F.gelu(self.groups(self.mix(h)))
        h = h.flatten(2).mT
        out: Tensor = self.head((h + self.attention(self.layer(h))).mean(1))
        return out


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of each sample, with its derivative."""
    target = (torch.arange(logits.shape[1]) == labels[:, None]).to(logits.dtype)
    value = logits.logsumexp(1) - (logits * target).sum(1)
    return value, logits.softmax(1) - target


def labels_of(x: Tensor, classes: int = 5) -> Tensor:
    return torch.arange(len(x)) % classes


def trace(module: nn.Module, x: Tensor, gradient: bool) -> torch.fx.GraphModule:
    return trace_value_and_gradient(module, energy, (x, labels_of(x))) if gradient else trace_forward(module, (x,))


def relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm())


def assert_traced(module: nn.Module, x: Tensor, tolerance: float = 1e-8) -> None:
    module = module.double().eval().requires_grad_(False)
    labels = labels_of(x)
    graph = trace_value_and_gradient(module, energy, (x, labels))
    assert operators(graph) <= PRIMITIVES | {"getitem"}
    for a, b in zip(graph(x, labels), EagerGradientEngine(module, energy).run(x, labels), strict=True):
        assert a.shape == b.shape
        assert relative(a, b) < tolerance


# --- one small network -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return randomise(Small())


@pytest.fixture(scope="module")
def traced(small: nn.Module) -> torch.fx.GraphModule:
    x = image(3, 3, 8, 8)
    return trace_value_and_gradient(small, cross_entropy, (x, labels_of(x)))


def test_the_gradient_is_that_of_finite_differences(traced: torch.fx.GraphModule) -> None:
    x, step = image(3, 3, 8, 8, seed=3), 1e-5
    labels = labels_of(x)
    gradient = traced(x, labels)[1]
    for seed in range(4, 10):
        direction = image(3, 3, 8, 8, seed=seed)
        up, down = (traced(x + sign * step * direction, labels)[0] for sign in (1, -1))
        along = (gradient * direction).flatten(1).sum(1)
        torch.testing.assert_close((up - down) / (2 * step), along, rtol=1e-6, atol=1e-8)


def test_the_labels_stay_an_input(traced: torch.fx.GraphModule, small: nn.Module) -> None:
    x, labels = image(3, 3, 8, 8, seed=5), torch.tensor([4, 4, 1])
    want = EagerGradientEngine(small, cross_entropy).run(x, labels)
    for a, b in zip(traced(x, labels), want, strict=True):
        assert_same(a, b)


def test_the_graph_needs_no_autograd(traced: torch.fx.GraphModule) -> None:
    x = image(3, 3, 8, 8).requires_grad_(True)
    with torch.inference_mode():
        out = traced(x, labels_of(x))
    assert not any(y.requires_grad for y in out)
    assert operators(traced) <= PRIMITIVES | {"getitem"}


def test_samples_are_not_coupled(traced: torch.fx.GraphModule) -> None:
    x = image(3, 3, 8, 8)
    labels = labels_of(x)
    other = x.clone()
    other[1:] = image(2, 3, 8, 8, seed=9)
    for a, b in zip(traced(x, labels), traced(other, labels), strict=True):
        assert_same(a[:1], b[:1])


def test_further_inputs_follow_the_labels() -> None:
    class Viewed(nn.Module):
        def forward(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
            return (rows @ x @ columns.mT).relu().flatten(1)

    x, rows, columns = image(2, 2, 5, 5), image(2, 1, 3, 5, seed=1), image(2, 1, 4, 5, seed=2)
    module, labels = Viewed(), labels_of(x)
    graph = trace_value_and_gradient(module, energy, (x, labels, rows, columns))
    given = (x * 2, labels, rows + 1, columns - 1)
    for a, b in zip(graph(*given), EagerGradientEngine(module, energy).run(*given), strict=True):
        assert_same(a, b)


def test_forward_graphs_return_tuples(small: nn.Module) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, x.relu()

    x = image(2, 3, 8, 8)
    (logits,) = trace_forward(small, (x,))(x + 1)
    assert_same(logits, small(x + 1))
    double, positive = trace_forward(Two(), (x,))(-x)
    assert torch.equal(double, -2 * x)
    assert torch.equal(positive, (-x).relu())


def test_tracing_leaves_the_module_as_it_was(small: nn.Module) -> None:
    before = {name: value.clone() for name, value in small.state_dict().items()}
    trace_forward(small, (image(1, 3, 8, 8),))
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in small.modules())


# --- teachers ----------------------------------------------------------------------------------------------------

TEACHERS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({}, 64),
    "efficientnet_lite0": ({}, 64),
    "mobilenetv3_small_100": ({}, 64),
    "convnext_atto": ({}, 64),
    "regnetx_002": ({}, 64),
    "regnety_002": ({}, 64),
    "vit_tiny_patch16_224": ({"img_size": 64, "depth": 2, "embed_dim": 48}, 64),
    "deit_tiny_distilled_patch16_224": ({"img_size": 64, "depth": 2, "embed_dim": 48}, 64),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
        64,
    ),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_teachers_of_timm(name: str) -> None:
    options, size = TEACHERS[name]
    torch.manual_seed(0)
    # Hard sigmoid's derivative holds a float32 sixth in aten: 3e-8, damped by how little it contributes.
    assert_traced(timm.create_model(name, num_classes=5, **options), image(2, 3, size, size))


class Decoder(nn.Module):
    """A decoder's image as rows."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.vae.decode(z, return_dict=False)[0].flatten(1)
        return out


def test_the_autoencoder_of_stable_diffusion() -> None:
    torch.manual_seed(0)
    assert_traced(Decoder(autoencoder_kl()), image(2, 4, 4, 5))


def test_the_tiny_autoencoder() -> None:
    torch.manual_seed(0)
    assert_traced(Decoder(autoencoder_tiny(levels=4)), image(2, 4, 2, 3))


def test_the_bundled_autoencoder() -> None:
    vae = diffusers.AutoencoderDC.from_pretrained(assets() / "diffusion" / "vae")
    channels = vae.config["latent_channels"]
    assert_traced(Decoder(vae), image(1, channels, 4, 4))


def double_oracle(run: Synthesizer) -> EagerGradientEngine:
    module = copy.deepcopy(StaticLatentClassifier(run.decoder, run.teacher)).double().eval().requires_grad_(False)
    return EagerGradientEngine(module, energy_of(run.config.guidance))


def test_the_bundled_teacher_and_decoder_in_single_precision() -> None:
    """The typical sample is within 1e-4 of float64.

    A ReLU6 whose argument is at its kink takes either side by rounding alone and moves a gradient by about 1e-3: of 16
    samples that happened to five here, and to six in eager float32.
    """
    run = Synthesizer.load(load_config("minis-emoji", ("sampling.batch_size=16",)))
    part = Parts(run).get("energy_gradient")
    inputs = real_inputs(run, "energy_gradient")
    graph = part.trace("fp32", inputs)
    assert operators(graph) <= PRIMITIVES | {"getitem"}  # type: ignore[arg-type]
    with torch.no_grad():
        got = graph(*inputs)
    exact = double_oracle(run).run(*(x.double() if x.is_floating_point() else x for x in inputs))
    for a, b in zip(got, exact, strict=True):
        assert a.dtype == torch.float32
        assert float(sample_errors(a, b).median()) <= 1e-4


def test_the_bundled_teacher_and_decoder_in_double_precision() -> None:
    run = Synthesizer.load(load_config("minis-emoji", ("sampling.batch_size=2",)))
    oracle = double_oracle(run)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in Parts(run).get("energy_gradient").random(0))
    graph = trace_value_and_gradient(oracle.module, oracle.energy, inputs)
    with torch.no_grad():
        got = graph(*inputs)
    for a, b in zip(got, oracle.run(*inputs), strict=True):
        assert float(sample_errors(a, b).max()) <= 1e-6  # the energy itself is float32


# --- refusals ----------------------------------------------------------------------------------------------------


class Spectrum(nn.Module):
    """An operator without any form."""

    def forward(self, x: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft(x)
        return spectrum.abs().flatten(1)


class Cumulative(nn.Module):
    """Another."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


class SoftPlus(nn.Module):
    """An operator that is a primitive, with a derivative that is not."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


class Holder(nn.Module):
    """It holds the part that is to blame."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.first, self.part = nn.Identity(), part

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.part(self.first(x))
        return out


@pytest.mark.parametrize(
    ("part", "operator"), [(Spectrum(), r"_fft_r2c\.default"), (Cumulative(), r"cumsum\.default")], ids=str
)
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_an_operator_without_a_form_is_named_with_its_module(part: nn.Module, operator: str, gradient: bool) -> None:
    x = image(2, 6)
    message = rf"operator aten\.{operator} of part \({type(part).__name__}\) has no export-safe form; add one to"
    with pytest.raises(UnsupportedOpError, match=message):
        trace(Holder(part), x, gradient)


def test_an_operator_of_the_backward_pass_is_named_with_the_module_it_derives() -> None:
    x = image(2, 6)
    trace_forward(Holder(SoftPlus()), (x,))
    with pytest.raises(UnsupportedOpError, match=r"operator aten\.softplus_backward\.default of part \(SoftPlus\)"):
        trace_value_and_gradient(Holder(SoftPlus()), energy, (x, labels_of(x)))


def test_the_module_itself_and_the_objective_are_named_too() -> None:
    def cumulative(y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return y.cumsum(1)[:, -1], torch.ones_like(y)

    x = image(2, 6)
    with pytest.raises(UnsupportedOpError, match=r"of the module \(Cumulative\)"):
        trace_forward(Cumulative(), (x,))
    with pytest.raises(UnsupportedOpError, match=r"cumsum\.default of the objective"):
        trace_value_and_gradient(nn.Identity(), cumulative, (x, labels_of(x)))


def test_hooks_are_removed_after_a_refusal() -> None:
    module = Holder(Cumulative())
    with pytest.raises(UnsupportedOpError):
        trace_forward(module, (image(2, 6),))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_trainable_weights_are_refused(gradient: bool) -> None:
    module, x = nn.Linear(6, 3).double(), image(2, 6)
    with pytest.raises(EngineInputError, match=r"call module\.eval\(\)\.requires_grad_\(False\) first"):
        trace(module, x, gradient)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)], ids=str)
def test_batch_statistics_are_refused(norm: nn.Module) -> None:
    module = nn.Sequential(norm, nn.Flatten()).double().requires_grad_(False).train()
    x = image(2, 3, 4, 4)
    with pytest.raises(UnsupportedOpError, match=r"0 \(BatchNorm2d\) is in training mode.*couple the samples"):
        trace_value_and_gradient(module, energy, (x, labels_of(x)))


def test_batch_statistics_in_evaluation_are_refused() -> None:
    module = nn.BatchNorm2d(3, track_running_stats=False).double().requires_grad_(False).eval()
    with pytest.raises(UnsupportedOpError, match="native_batch_norm: batch statistics couple the samples"):
        trace_forward(module, (image(2, 3, 4, 4),))


def test_dropout_in_training_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=r"of 0 \(Dropout\)"):
        trace_forward(nn.Sequential(nn.Dropout(0.5)).train(), (image(2, 3),))
    x = image(2, 3)
    assert torch.equal(trace_forward(nn.Dropout(0.5).eval(), (x,))(x)[0], x)
