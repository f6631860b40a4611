"""The networks of the bundled GPU configurations at full width and size become graphs, without their weights.

On the meta device a graph of SDXL at 1024 pixels takes seconds and a gigabyte. It shows what a tiny network cannot:
that every operator at these sizes has a form that exports, that an exporter's graph has the sizes that a run has, and
that nothing looks at a number on the way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from prism_engines.onnx_export import OPSET
from prism_engines.spec import Precision
from torch import nn

from prism_fast.compile import parts as compile_parts
from prism_fast.compile.parts import Part, Parts
from prism_fast.config import RunConfig, load_config
from prism_fast.estimate.outline import outline_run
from tests.gpu.test_whole_configurations import outline

SD15, SDXL = "imagenet1k-sd15", "imagenet1k-sdxl"
CLASSES = 1000
OWN = ("unet", "unet_deep", "unet_shallow", "decoder", "teacher", "energy_gradient")
PARTS: list[Any] = [(SD15, part) for part in ("text_encoder", *OWN)]
#: Of SDXL, what exports within half a minute in every run of the tests.
SHORT = ("unet_shallow", "decoder", "teacher")
PARTS += [
    pytest.param(SDXL, part, marks=() if part in SHORT else pytest.mark.nightly)
    for part in ("text_encoder", "text_encoder_2", *OWN)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Configurations and tokenizers of both models."""
    kinds = ((SD15, "sd15"), (SDXL, "sdxl"))
    return {name: outline(kind, tmp_path_factory.mktemp("models") / kind) for name, kind in kinds}


@pytest.fixture(autouse=True)
def _without_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that has no bytes has no hash."""
    monkeypatch.setattr(compile_parts, "weights_hash", lambda module: "")


def whole(folders: dict[str, Path], name: str, *settings: str) -> RunConfig:
    folder = folders[name]
    return load_config(
        name, (f"models.diffusion={folder}", f"models.light_decoder={folder / 'light_decoder'}", *settings)
    )


def made(config: RunConfig, name: str, precision: Precision, scratch: Path) -> tuple[Part, nn.Module]:
    """A part and the module that backends build from."""
    part = Parts(outline_run(config)).get(name)
    return part, part.make_graph(scratch).module(precision)


def require_outputs(config: RunConfig, part: Part, module: nn.Module) -> None:
    """What the module gives for the inputs of the part, by shape and type."""
    with torch.no_grad():
        found = module(*part.random(0))
    height, width = config.sampling.height, config.sampling.width
    n, latents = part.spec.batch, (4, height // 8, width // 8)
    tokens, two = part.spec.inputs[0].shape[-1], config.models.diffusion.endswith("sdxl")
    first, second = (n, tokens, 768), (n, tokens, 1280)
    feature = (640, *latents[1:])  # what the shallow half takes from the last block but one
    wanted = {
        "text_encoder": [first, (n, 768)] if two else [first],
        "text_encoder_2": [second, (n, 1280)],
        "unet": [(n, *latents)],
        "unet_deep": [(n, *latents), (n, *feature)],
        "unet_shallow": [(n, *latents)],
        "decoder": [(n, 3, height, width)],
        "teacher": [(n, CLASSES)],
        "energy_gradient": [(n,), (n, *latents), (n, CLASSES)],
    }[part.spec.part]
    assert [tuple(x.shape) for x in found] == wanted
    assert len(found) == len(part.spec.outputs)
    assert {x.dtype for x in found} == {torch.float32}


def test_the_gradient_of_sd15_is_one_graph(folders: dict[str, Path], tmp_path: Path) -> None:
    config = whole(folders, SD15)
    part, module = made(config, "energy_gradient", "fp16", tmp_path)
    assert isinstance(module, torch.fx.GraphModule)
    assert part.spec.batch == config.engines.gradient_batch
    require_outputs(config, part, module)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part_name"), PARTS)
def test_every_part_exports(folders: dict[str, Path], name: str, part_name: str, tmp_path: Path) -> None:
    """``torch.export``, which Inductor starts from, and ONNX, which all other backends do."""
    config = whole(folders, name)
    part, module = made(config, part_name, "fp16", tmp_path)
    require_outputs(config, part, module)
    with torch.no_grad():  # what optimises a graph computes its constants, and these have no numbers
        program = torch.onnx.export(
            module, part.random(0), opset_version=OPSET, dynamo=True, verbose=False, optimize=False
        )
    assert program is not None
    graph = program.model.graph
    assert [tuple(x.shape or ()) for x in graph.inputs] == [x.shape for x in part.spec.inputs]
    assert len(graph.outputs) == len(part.spec.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [SD15, pytest.param(SDXL, marks=pytest.mark.nightly)])
def test_the_gradient_through_the_full_decoder_is_one_graph(
    folders: dict[str, Path], name: str, precision: Precision, tmp_path: Path
) -> None:
    config = whole(folders, name, "guidance.decoder=full", "engines.gradient_batch=1")
    part, module = made(config, "energy_gradient", precision, tmp_path)
    assert isinstance(module, torch.fx.GraphModule)
    require_outputs(config, part, module)
