"""A module as an ONNX file: static shapes, no traces of the machine that wrote it, whole or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prism_engines.errors import EngineBuildError
from prism_engines.quiet import quiet, root_cause
from prism_engines.spec import EngineSpec

#: Every backend here reads opset 18.
OPSET = 18
#: Version of ONNX's file format that torch's exporter writes.
IR_VERSION = 10
#: Protobuf holds 2 GiB; weights above this go into ``<file>.data``, which leaves room for the graph itself.
EXTERNAL_ABOVE_BYTES = 1_900_000_000


def export_onnx(module: nn.Module, inputs: tuple[torch.Tensor, ...], spec: EngineSpec, path: Path) -> Path:
    """Write ``module`` as ONNX with the names of ``spec``; weights above 2 GB go into ``<path>.data``.

    Raises:
        EngineBuildError: an operator has no ONNX form; the message names it.
    """
    program = _program(module, inputs, spec)
    weights = [value.const_value for value in program.model.graph.initializers.values()]
    external = sum(weight.nbytes for weight in weights) > EXTERNAL_ABOVE_BYTES
    path.parent.mkdir(parents=True, exist_ok=True)
    # The graph names its data file, so both are written under their final names, in a directory of their own.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        program.save(Path(folder) / path.name, external_data=external)
        for part in reversed(onnx_files(Path(folder) / path.name)):  # the graph last: it marks the export done
            os.replace(part, path.with_name(part.name))
    return path


def onnx_files(path: Path) -> list[Path]:
    """The ONNX file and, when its weights are external, the file that holds them."""
    return [part for part in (path, path.with_name(f"{path.name}.data")) if part == path or part.exists()]


def _program(module: nn.Module, inputs: tuple[torch.Tensor, ...], spec: EngineSpec) -> Any:
    names = [tensor.name for tensor in spec.inputs]
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                inputs,
                input_names=names,
                output_names=list(spec.outputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except ModuleNotFoundError as error:
        raise EngineBuildError(
            f"part {spec.part}: ONNX export needs the Python module {error.name}; run: pip install 'prism-fast[cpu]'"
        ) from error
    except Exception as error:  # the exporter's own errors, and whatever a module raises while it is traced
        raise EngineBuildError(f"part {spec.part} does not export to ONNX: {root_cause(error)}") from error
    return _tidy(program)


def _tidy(program: Any) -> Any:
    """Merge equal constants, and drop metadata: it holds source paths, which differ from machine to machine."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, DeduplicateInitializersPass

    for step in (DeduplicateInitializersPass(), ClearMetadataAndDocStringPass()):
        step(program.model)
    return program
