from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from prism_engines.backends.eager import EagerGradientEngine, InChunks
from prism_engines.backends.inductor import InductorBackend
from prism_engines.backends.openvino import OpenVinoBackend
from prism_engines.backends.padded import check_inputs
from prism_engines.lowerings import LOWERINGS

from prism_fast.compile.parts import InPrecision, Part, Parts, trace_rescaled_gradient
from prism_fast.compile.probes import real_inputs
from prism_fast.config import RunConfig
from prism_fast.errors import InputError
from prism_fast.synthesis.synthesizer import Synthesizer
from tests.compile.conftest import under

ALL = ("text_encoder", "unet", "unet_deep", "unet_shallow", "decoder", "energy_gradient", "teacher")
UNETS = {"unet", "unet_deep", "unet_shallow"}
DECODES = {"decoder", "energy_gradient"}
JUDGES = {"energy_gradient", "teacher"}


def changed(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    document = config.model_dump()
    for name, values in sections.items():
        document[name] |= values
    return RunConfig.model_validate(document)


def digests(run: Synthesizer) -> dict[str, str]:
    parts = Parts(run)
    return {name: parts.get(name).key(OpenVinoBackend(), "fp32").digest for name in parts.names()}


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


@pytest.fixture
def again(config: RunConfig) -> Synthesizer:
    """Loaded anew, to change."""
    return Synthesizer.load(config)


@pytest.fixture(scope="module")
def before(run: Synthesizer) -> dict[str, str]:
    return digests(run)


def test_the_names(parts: Parts) -> None:
    assert parts.names() == ALL


@pytest.mark.parametrize("name", ALL)
def test_traced_modules_compute_what_the_oracle_computes(parts: Parts, name: str, tmp_path: Path) -> None:
    part = parts.get(name)
    module = part.make_graph(tmp_path).module("fp32")
    for inputs in (part.random(1), real_inputs(parts.synthesizer, name)):
        rows = check_inputs(part.spec, inputs, "cpu")
        assert rows == part.spec.batch == parts.batch * (2 if name in UNETS else 1)
        wanted = part.oracle.run(*inputs)
        with torch.no_grad():
            found = module(*inputs)
        assert isinstance(found, tuple)
        assert len(found) == len(wanted) == len(part.spec.outputs)
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_random_inputs_follow_their_seed(parts: Parts, name: str) -> None:
    random = parts.get(name).random
    assert all(torch.equal(a, b) for a, b in zip(random(1), random(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(random(1), random(2), strict=True))


def test_real_inputs_hold_different_rows(parts: Parts) -> None:
    (latents,) = real_inputs(parts.synthesizer, "decoder")
    assert latents.flatten(1).std(0).min() > 0
    tokens, _ = real_inputs(parts.synthesizer, "text_encoder")
    assert len({tuple(row.tolist()) for row in tokens}) > 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_another_precision_leaves_the_runs_weights_alone(parts: Parts, precision: Any, tmp_path: Path) -> None:
    part = parts.get("decoder")
    module, inputs = part.make_graph(tmp_path).module(precision), part.random(1)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert {p.dtype for p in parts.synthesizer.decoder.parameters()} == {torch.float32}
    with torch.no_grad():
        (image,) = module(*inputs)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, part.oracle.run(*inputs)[0], rtol=0, atol=0.02)


def test_two_loads_have_the_same_keys(before: dict[str, str], again: Synthesizer) -> None:
    assert digests(again) == before


@pytest.mark.parametrize(
    ("network", "parts_that_differ"),
    [("unet", UNETS), ("vae", DECODES), ("text_encoder", {"text_encoder"}), ("teacher", JUDGES)],
)
def test_one_changed_weight_changes_the_key(
    before: dict[str, str], again: Synthesizer, network: str, parts_that_differ: set[str]
) -> None:
    module = again.teacher.net if network == "teacher" else getattr(again.model, network)
    list(module.parameters())[-1].data.view(-1)[-1] += 1e-6
    assert differing(digests(again), before) == parts_that_differ


@pytest.mark.parametrize(
    ("sections", "parts_that_differ"),
    [
        ({"guidance": {"objective": "free_energy"}}, {"energy_gradient"}),
        ({"guidance": {"temperature": 2.0}}, {"energy_gradient"}),
        ({"sampling": {"batch_size": 2}}, set(ALL)),
        ({"sampling": {"height": 32, "width": 32}}, set(ALL) - {"text_encoder"}),
        ({"sampling": {"steps": 7, "guidance_scale": 1.5}, "guidance": {"scale": 0.7, "every": 2}}, set()),
        ({"engines": {"backend": "auto", "precision": "bf16"}}, set()),
        ({"guidance": {"view_size": 24}}, {"energy_gradient"}),
        ({"guidance": {"settled_below": 1.0}}, set()),
        ({"engines": {"gradient_batch": 2}}, {"energy_gradient"}),
        ({"engines": {"decoder_batch": 2}}, {"decoder"}),
        ({"engines": {"decoder_batch": 9}}, set()),  # more than a batch
        ({"sampling": {"guidance_interval": (0.0, 0.5)}}, UNETS),
        ({"sampling": {"reuse_every": 3}}, set()),
    ],
)
def test_settings_that_change_the_key(
    before: dict[str, str],
    run: Synthesizer,
    config: RunConfig,
    sections: dict[str, dict[str, Any]],
    parts_that_differ: set[str],
) -> None:
    assert differing(digests(under(run, changed(config, **sections))), before) == parts_that_differ


def test_constants_that_no_weight_holds_change_the_key(before: dict[str, str], again: Synthesizer) -> None:
    again.decoder.scale = 0.5
    assert differing(digests(again), before) == DECODES
    again.decoder.scale = run_scale = again.model.scaling_factor
    assert run_scale == 1
    unet: Any = again.model.unet
    unet.register_to_config(flip_sin_to_cos=False)
    text_encoder: Any = again.model.text_encoder
    text_encoder.config.num_attention_heads = 4
    assert differing(digests(again), before) == UNETS | {"text_encoder"}


def test_the_teachers_normalisation_changes_the_key(before: dict[str, str], again: Synthesizer) -> None:
    settings = again.teacher.config.model_copy(update={"mean": (0.4,) * 3})
    object.__setattr__(again.teacher, "config", settings)
    assert differing(digests(again), before) == JUDGES


def test_backend_and_precision_change_the_key(parts: Parts) -> None:
    part: Part = parts.get("decoder")
    keys = {
        part.key(OpenVinoBackend(), "fp32").digest,
        part.key(OpenVinoBackend(), "bf16").digest,
        part.key(InductorBackend(), "fp32").digest,
    }
    assert len(keys) == 3


def test_weights_in_another_type_are_refused(config: RunConfig) -> None:
    half = changed(config, sampling={"dtype": "bfloat16"}, engines={"backend": "eager"})
    with pytest.raises(InputError, match=r"weights are bfloat16, but engines are made from, and judged by, float32"):
        Parts(Synthesizer.load(half))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_compiled_run_has_the_same_engines_whatever_its_type(
    before: dict[str, str], config: RunConfig, dtype: str
) -> None:
    assert digests(Synthesizer.load(changed(config, sampling={"dtype": dtype}))) == before


def test_the_oracle_of_the_gradient_keeps_to_its_rows(run: Synthesizer, config: RunConfig) -> None:
    part = Parts(under(run, changed(config, engines={"gradient_batch": 3}))).get("energy_gradient")
    inputs = real_inputs(run, "energy_gradient")
    rows: list[int] = []
    oracle: Any = part.oracle
    oracle.engine.module.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    found = part.oracle.run(*inputs)
    assert rows == [3, 1]
    for a, b in zip(found, Parts(run).get("energy_gradient").oracle.run(*inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_decoder_of_fewer_rows_decodes_a_whole_batch(run: Synthesizer, config: RunConfig) -> None:
    part = Parts(under(run, changed(config, engines={"decoder_batch": 3}))).get("decoder")
    assert (part.spec.batch, len(part.random(1)[0])) == (3, 3)
    inputs = real_inputs(run, "decoder")  # what the gate gives the oracle: four rows
    rows: list[int] = []
    oracle: Any = part.oracle
    oracle.engine.module.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    (found,) = oracle.run(*inputs)
    assert rows == [3, 1]
    torch.testing.assert_close(found, Parts(run).get("decoder").oracle.run(*inputs)[0])


def test_only_the_gradient_in_fp16_is_another_graph(parts: Parts) -> None:
    for name in ALL:
        part = parts.get(name)
        graphs = {p: part.key(InductorBackend(), p).graph for p in ("fp32", "bf16", "fp16")}
        assert graphs["fp32"] == graphs["bf16"] == part.graph
        assert (graphs["fp16"] != part.graph) is (name == "energy_gradient")


def test_a_small_gradient_does_not_vanish_in_fp16(run: Synthesizer, config: RunConfig, tmp_path: Path) -> None:
    """With a cotangent of a millionth of what it is, what goes back would be zero in float16."""
    part = Parts(under(run, changed(config, guidance={"objective": "free_energy"}))).get("energy_gradient")
    module, inputs, oracle = part.make_graph(tmp_path).module("fp16"), part.random(1), part.oracle
    assert isinstance(oracle, InChunks)
    assert isinstance(oracle.engine, EagerGradientEngine)
    energy = oracle.engine.energy

    def faint(logits: torch.Tensor, labels: torch.Tensor) -> Any:
        value, cotangent = energy(logits, labels)
        return value, 1e-6 * cotangent

    _, wanted, _ = oracle.run(*inputs)
    inside = InPrecision(oracle.engine.module, torch.float16)
    graph = trace_rescaled_gradient(inside, faint, inputs, LOWERINGS)
    for one, size in ((module, 1.0), (graph, 1e-6)):
        with torch.no_grad():
            found = one(*inputs)[1] / size
        assert torch.nn.functional.cosine_similarity(found.flatten(1), wanted.flatten(1)).median() > 0.98
        torch.testing.assert_close(found.norm(), wanted.norm(), rtol=0.1, atol=0)


def test_how_often_a_batch_needs_a_part(run: Synthesizer, config: RunConfig) -> None:
    guidance = {"window": (0.1, 0.8), "every": 2}
    guided = Parts(under(run, changed(config, sampling={"steps": 10}, guidance=guidance)))
    once = {"text_encoder": 1, "decoder": 1, "energy_gradient": 4, "teacher": 1}
    assert {name: guided.calls(name) for name in ALL} == {**once, "unet": 10, "unet_deep": 0, "unet_shallow": 0}
    # Deep at steps 0, 3, 6 and 9; both branches, two runs of an engine of n rows each, at steps 0 to 7.
    savings = {"steps": 10, "reuse_every": 3, "guidance_interval": (0.0, 0.8)}
    saving = Parts(under(run, changed(config, sampling=savings, guidance=guidance)))
    assert {name: saving.calls(name) for name in ALL} == {**once, "unet": 0, "unet_deep": 7, "unet_shallow": 11}
    small = changed(config, sampling={"steps": 10}, guidance=guidance, engines={"gradient_batch": 3})
    assert Parts(under(run, small)).calls("energy_gradient") == 8  # a batch of four takes two runs of three rows
    assert Parts(under(run, changed(config, engines={"decoder_batch": 3}))).calls("decoder") == 2
    free = Parts(under(run, changed(config, guidance={"enabled": False})))
    assert free.calls("energy_gradient") == 0
