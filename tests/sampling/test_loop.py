"""The guided loop on tiny random models in real formats."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any, get_args

import pytest
import torch
from prism_engines.base import Engine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prism_fast.config import GuidanceConfig, Objective, RunConfig, SolverName, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.errors import ConfigError
from prism_fast.sampling.loop import GuidedSampler, Sampled, SamplingBatch
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.sampling.conftest import STEPS

CPU = torch.device("cpu")


class Counting:
    """An engine that remembers the rows of each of its calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.rows = engine, "counting", list[int]()

    @property
    def calls(self) -> int:
        return len(self.rows)

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.rows.append(len(inputs[0]))
        return self.engine.run(*inputs)


class Spoiling(Counting):
    """It spoils the gradient of the second sample, too."""

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        energy, gradient, logits = super().run(*inputs)
        gradient = gradient.clone()
        gradient[1] = float("nan")
        return energy, gradient, logits


def _batch(synthesizer: Synthesizer, indices: list[int], margin: float = float("-inf")) -> SamplingBatch:
    rows = build_plan(synthesizer.config, max(indices) + 1)
    batch = synthesizer.batch([rows[i] for i in indices])
    return replace(batch, margins=torch.full((len(indices),), margin))


def _put(user: Synthesizer | GuidedSampler, **engines: Any) -> None:
    """Give a synthesizer or a sampler other engines."""
    user.engines = replace(user.engines, **engines)


def _sampler(
    synthesizer: Synthesizer,
    gradient: type[Counting] | None = None,
    sampling: dict[str, Any] | None = None,
    **guidance: Any,
) -> GuidedSampler:
    """The synthesizer's sampler with other settings."""
    config: RunConfig = synthesizer.config.model_copy(
        update={
            "guidance": GuidanceConfig(**guidance),
            "sampling": synthesizer.config.sampling.model_copy(update=sampling or {}),
        }
    )
    other = Synthesizer(config, synthesizer.model, synthesizer.teacher, synthesizer.hashes).sampler
    if gradient is not None:
        _put(other, energy_gradient=gradient(other.engines.energy_gradient))
    return other


def _bits(sampled: Sampled, i: int) -> tuple[bytes, float]:
    return sampled.latents[i].numpy().tobytes(), float(sampled.energy_before[i])


@pytest.mark.parametrize("mode", ["denoised", "latent"])
@pytest.mark.parametrize("solver", get_args(SolverName))
def test_the_other_samples_of_a_batch_change_nothing(synthesizer: Synthesizer, solver: str, mode: str) -> None:
    sampler = _sampler(synthesizer, sampling={"solver": solver}, mode=mode)
    first = sampler.sample(_batch(synthesizer, [0, 1, 2, 3]), CPU)
    # Sample 2 in another place among others.
    second = sampler.sample(_batch(synthesizer, [2, 9, 17, 40]), CPU)
    assert _bits(first, 2) == _bits(second, 0)
    assert _bits(first, 1) != _bits(second, 1)


@pytest.mark.parametrize("mode", ["denoised", "latent"])
def test_the_size_of_the_batch_changes_only_rounding(synthesizer: Synthesizer, mode: str) -> None:
    sampler = _sampler(synthesizer, mode=mode)
    four = sampler.sample(_batch(synthesizer, [0, 1, 2, 3]), CPU)
    for size in (1, 3):
        part = sampler.sample(_batch(synthesizer, [0, 1, 2, 3][:size]), CPU)
        torch.testing.assert_close(part.latents, four.latents[:size], rtol=0, atol=1e-3)


def test_twice_gives_the_same_bits_and_another_seed_does_not(synthesizer: Synthesizer) -> None:
    batch = _batch(synthesizer, [0, 1])
    sampler = _sampler(synthesizer)
    first, second = sampler.sample(batch, CPU), sampler.sample(batch, CPU)
    assert torch.equal(first.latents, second.latents)
    sampler.seed += 1
    assert not torch.allclose(first.latents, sampler.sample(batch, CPU).latents, atol=1e-2)


@pytest.mark.parametrize("mode", ["denoised", "latent"])
def test_nan_in_one_prompt_quarantines_that_sample_only(synthesizer: Synthesizer, mode: str) -> None:
    sampler, batch = _sampler(synthesizer, mode=mode), _batch(synthesizer, [0, 1, 2, 3])
    clean = sampler.sample(batch, CPU)
    text = batch.conditions[0].clone()
    text[4 + 2, 0, 0] = float("nan")  # the conditional rows come second
    spoiled = sampler.sample(replace(batch, conditions=(text,)), CPU)
    assert clean.finite.all()
    assert spoiled.finite.tolist() == [True, True, False, True]
    for i in (0, 1, 3):
        assert _bits(spoiled, i) == _bits(clean, i)


def test_an_unusable_gradient_is_refused_and_counted(synthesizer: Synthesizer) -> None:
    batch = _batch(synthesizer, [0, 1, 2])
    clean = _sampler(synthesizer).sample(batch, CPU)
    plain = _sampler(synthesizer, enabled=False).sample(batch, CPU)
    spoiled = _sampler(synthesizer, Spoiling).sample(batch, CPU)
    steps = len(_sampler(synthesizer).guided_steps)
    assert spoiled.refused.tolist() == [0, steps, 0]
    assert spoiled.guided.tolist() == [steps, 0, steps]
    assert torch.equal(spoiled.latents[1], plain.latents[1])
    assert torch.equal(spoiled.latents[[0, 2]], clean.latents[[0, 2]])


@pytest.mark.parametrize(
    ("mode", "objective"),
    [("denoised", name) for name in get_args(Objective)] + [("latent", "cross_entropy")],
)
def test_guidance_lowers_the_objective(synthesizer: Synthesizer, mode: str, objective: str) -> None:
    """Twelve pairs from the same noise, judged by the very objective on the final latents' whole view."""
    settings: dict[str, Any] = {"mode": mode, "objective": objective, "view_scale": (0.9, 1.0), "view_flip": False}
    batch = _batch(synthesizer, list(range(12)))
    guided = _sampler(synthesizer, scale=1.0, **settings)
    energies = {}
    for name, sampler in {"guided": guided, "plain": _sampler(synthesizer, scale=0.0, **settings)}.items():
        latents = sampler.sample(batch, CPU).latents
        boxes = guided.boxes(batch.indices, 0)
        energies[name], _, _ = guided.engines.energy_gradient.run(latents, batch.labels, boxes)
    gain = energies["plain"] - energies["guided"]
    assert gain.mean() > 0
    assert (gain > 0).float().mean() >= 0.75


@pytest.mark.parametrize(("every", "calls"), [(1, 7), (2, 4), (3, 3), (7, 1), (50, 1)])
def test_every_k_computes_fewer_gradients_and_guides_as_often(synthesizer: Synthesizer, every: int, calls: int) -> None:
    sampler = _sampler(synthesizer, Counting, every=every, window=(0.1, 0.8))
    sampled = sampler.sample(_batch(synthesizer, [0, 1]), CPU)
    gradient: Any = sampler.engines.energy_gradient
    assert gradient.calls == calls
    assert sampled.guided.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("window", "expected"),
    [((0.0, 1.0), range(10)), ((0.1, 0.8), range(1, 8)), ((0.5, 0.6), range(5, 6)), ((0.0, 0.04), range(0))],
)
def test_the_window_is_a_part_of_the_steps(
    synthesizer: Synthesizer, window: tuple[float, float], expected: range
) -> None:
    sampler = _sampler(synthesizer, window=window)
    assert sampler.guided_steps == expected
    sampled = sampler.sample(_batch(synthesizer, [0, 1]), CPU)
    assert sampled.guided.tolist() == [len(expected)] * 2
    assert bool(sampled.energy_before.isnan().all()) == (len(expected) == 0)


@pytest.mark.parametrize("mode", ["denoised", "latent"])
def test_samples_inside_the_margin_are_unchanged(synthesizer: Synthesizer, mode: str) -> None:
    sampler = _sampler(synthesizer, mode=mode)
    indices = [0, 1, 2]
    plain = _sampler(synthesizer, enabled=False).sample(_batch(synthesizer, indices), CPU)
    guided = sampler.sample(_batch(synthesizer, indices), CPU)
    inside = sampler.sample(_batch(synthesizer, indices, margin=float("inf")), CPU)
    assert torch.equal(inside.latents, plain.latents)
    assert inside.guided.tolist() == [0, 0, 0]
    assert not torch.allclose(guided.latents, plain.latents, atol=1e-3)
    batch = _batch(synthesizer, indices)
    batch.margins[1] = float("inf")
    mixed = sampler.sample(batch, CPU)
    assert torch.equal(mixed.latents[1], plain.latents[1])
    assert torch.equal(mixed.latents[[0, 2]], guided.latents[[0, 2]])


def test_without_guidance_there_is_no_energy(synthesizer: Synthesizer) -> None:
    sampled = _sampler(synthesizer, enabled=False).sample(_batch(synthesizer, [0, 1]), CPU)
    assert sampled.energy_before.isnan().all()
    assert sampled.guided.tolist() == sampled.refused.tolist() == [0, 0]


def test_zero_scale_equals_no_guidance(synthesizer: Synthesizer) -> None:
    batch = _batch(synthesizer, [0, 1])
    zero = _sampler(synthesizer, scale=0.0).sample(batch, CPU)
    assert torch.equal(zero.latents, _sampler(synthesizer, enabled=False).sample(batch, CPU).latents)
    assert zero.energy_before.isfinite().all()


def test_guidance_scale_one_is_the_conditional_prediction(synthesizer: Synthesizer) -> None:
    """At w = 1 the unconditional text must not matter."""
    sampler = _sampler(synthesizer, sampling={"guidance_scale": 1.0}, enabled=False)
    batch = _batch(synthesizer, [0, 1])
    text = batch.conditions[0].clone()
    text[:2] += 1  # the unconditional rows come first
    other = replace(batch, conditions=(text,))
    torch.testing.assert_close(
        sampler.sample(batch, CPU).latents, sampler.sample(other, CPU).latents, rtol=0, atol=1e-3
    )


class _Watching(TorchDispatchMode):
    """Refuses what makes the host wait for the device: reading a value, or a copy whose size depends on one."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("sampling", [{}, {"reuse_every": 3, "guidance_interval": (0.1, 0.8)}])
def test_the_loop_never_waits_for_the_device(
    synthesizer: Synthesizer, sampling: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The values of labels and boxes are looked at on the CPU only, where that costs nothing.
    monkeypatch.setattr(import_module("prism_kernels.energy"), "_check_labels", lambda labels, classes: None)
    monkeypatch.setattr(import_module("prism_kernels.view"), "_check_boxes", lambda op, boxes, height, width: None)
    sampler, batch = _sampler(synthesizer, sampling=sampling, every=2), _batch(synthesizer, [0, 1, 2])
    with _Watching():
        sampler.sample(batch, CPU)
    with pytest.raises(AssertionError, match="waits"), _Watching():
        bool(torch.ones(1) > 0)


def test_reused_features_of_every_step_are_the_whole_unet(synthesizer: Synthesizer) -> None:
    """With the deep half at every step nothing is reused, so the two halves must give what the whole gives."""
    batch = _batch(synthesizer, [0, 1])
    whole = _sampler(synthesizer).sample(batch, CPU)
    sampler = _sampler(synthesizer)
    sampler.savings = tuple(replace(step, network="deep") for step in sampler.savings)
    assert torch.equal(sampler.sample(batch, CPU).latents, whole.latents)


def test_feature_reuse_runs_the_deep_half_less_often_and_stays_close(synthesizer: Synthesizer) -> None:
    batch = _batch(synthesizer, [0, 1])
    whole = _sampler(synthesizer, enabled=False).sample(batch, CPU).latents
    sampler = _sampler(synthesizer, sampling={"reuse_every": 2}, enabled=False)
    deep, shallow = Counting(sampler.engines.unet_deep), Counting(sampler.engines.unet_shallow)
    _put(sampler, unet_deep=deep, unet_shallow=shallow)
    reused = sampler.sample(batch, CPU).latents
    assert (deep.calls, shallow.calls) == (STEPS // 2, STEPS // 2)
    assert not torch.equal(reused, whole)
    assert (reused - whole).norm() < 0.2 * whole.norm()


def test_steps_outside_of_the_interval_run_one_branch(synthesizer: Synthesizer) -> None:
    sampler = _sampler(synthesizer, sampling={"guidance_interval": (0.0, 0.5)}, enabled=False)
    unet = Counting(sampler.engines.unet)
    _put(sampler, unet=unet)
    batch = _batch(synthesizer, [0, 1, 2])
    made = sampler.sample(batch, CPU).latents
    assert unet.rows == [6] * (STEPS // 2) + [3] * (STEPS // 2)
    # A step outside does what guidance scale 1 does.
    other = _sampler(synthesizer, sampling={"guidance_scale": 1.0}, enabled=False)
    other.savings, other.sampling = sampler.savings, sampler.sampling
    torch.testing.assert_close(made, other.sample(batch, CPU).latents)


def test_the_other_samples_change_nothing_with_every_saving_on(synthesizer: Synthesizer) -> None:
    savings = {"reuse_every": 2, "guidance_interval": (0.0, 0.7)}
    sampler = _sampler(synthesizer, sampling=savings, every=2, view_size=24)
    first = sampler.sample(_batch(synthesizer, [0, 1, 2, 3]), CPU)
    second = sampler.sample(_batch(synthesizer, [2, 9, 17, 40]), CPU)
    assert _bits(first, 2) == _bits(second, 0)


def test_a_settled_sample_gets_no_further_gradient(synthesizer: Synthesizer) -> None:
    settings: dict[str, Any] = {"window": (0.2, 0.8), "every": 3}
    batch = _batch(synthesizer, [0, 1, 2, 3])
    first = _sampler(synthesizer, **settings).sample(batch, CPU)
    middle = float(first.energy_before.sort().values[1:3].mean())
    sampler = _sampler(synthesizer, Counting, settled_below=middle, **settings)
    made = sampler.sample(batch, CPU)
    gradient: Any = sampler.engines.energy_gradient
    assert gradient.rows == [4, 2]
    settled = first.energy_before < middle
    assert made.guided.tolist() == [3 if s else 6 for s in settled.tolist()]
    assert made.refused.tolist() == [0] * 4
    assert torch.equal(made.energy_before, first.energy_before)
    difference = (made.latents - first.latents).flatten(1).abs().amax(1)
    assert (difference[settled] > 1e-4).all()
    assert (difference[~settled] < 1e-4).all()  # another number of rows rounds differently


def test_a_batch_of_settled_samples_asks_for_no_gradient(synthesizer: Synthesizer) -> None:
    sampler = _sampler(synthesizer, Counting, settled_below=1e6, window=(0.2, 0.8), every=2)
    made = sampler.sample(_batch(synthesizer, [0, 1]), CPU)
    gradient: Any = sampler.engines.energy_gradient
    assert gradient.rows == [2]
    assert made.guided.tolist() == [2, 2]


def test_a_threshold_that_nobody_reaches_changes_nothing(synthesizer: Synthesizer) -> None:
    batch = _batch(synthesizer, [0, 1, 2])
    plain = _sampler(synthesizer, every=2).sample(batch, CPU)
    made = _sampler(synthesizer, every=2, settled_below=-1e6).sample(batch, CPU)
    assert torch.equal(made.latents, plain.latents)
    assert torch.equal(made.guided, plain.guided)


def test_settling_needs_gradients_of_denoised_latents() -> None:
    with pytest.raises(ConfigError, match=r"set guidance\.settled_below to null"):
        load_config("minis-emoji", ("guidance.mode=latent", "engines.backend=eager", "sampling.reuse_every=1"))


def test_a_window_before_the_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="begin the window later"):
        load_config("minis-emoji", ("sampling.guidance_interval=[0.5,1.0]", "guidance.window=[0.1,0.8]"))


def test_a_prompt_is_encoded_once_and_memory_is_bounded(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Synthesizer(synthesizer.config, synthesizer.model, synthesizer.teacher, synthesizer.hashes)
    encoder = Counting(run.engines.text_encoder)
    _put(run, text_encoder=encoder)
    run.embed(["", "a", "b", "a"])
    run.embed(["", "b", "c"])
    assert encoder.rows == [3, 1]
    monkeypatch.setattr("prism_fast.synthesis.synthesizer.REMEMBERED_PROMPTS", 3)
    for i in range(20):
        run.embed(["", f"prompt {i}"])
    assert len(run._embeddings) <= 4
    assert encoder.rows[2:] == [1] * 20
