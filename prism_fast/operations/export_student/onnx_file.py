"""``model.onnx``: any batch size, normalisation inside, the classes' names in its metadata, checked in ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from prism_engines.backends.reasons import extra, module_reasons
from prism_engines.onnx_export import EXTERNAL_ABOVE_BYTES, OPSET
from prism_engines.quiet import quiet, root_cause
from torch import Tensor
from torch.export import ExportedProgram

from prism_fast.errors import InputError, RunError
from prism_fast.operations.export_student.source import Source
from prism_fast.operations.export_student.traced import largest_error

FILE = "model.onnx"
INPUT, OUTPUT = "pixels", "logits"


def require_packages() -> None:
    """Refuse before anything is written.

    Raises:
        InputError: a package is missing.
    """
    if missing := module_reasons("onnx", "onnxscript", "onnxruntime", remedy=f"{extra('cpu')}, or leave out onnx"):
        raise InputError(missing[0])


def write(program: ExportedProgram, source: Source, folder: Path, half: bool) -> tuple[Path, float]:
    """Write the file and run it in ONNX Runtime; gives it and the largest error of a logit.

    Raises:
        InputError: an operator has no ONNX form. RunError: ONNX Runtime refuses it, or gives other logits.
    """
    graph = _graph(program, source)
    weights = sum(value.const_value.nbytes for value in graph.model.graph.initializers.values())
    graph.save(folder / FILE, external_data=weights > EXTERNAL_ABOVE_BYTES)
    session = _session(folder / FILE)

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: pixels.numpy()})[0])

    return folder / FILE, largest_error(FILE, source, run, half)


def _graph(program: ExportedProgram, source: Source) -> Any:
    try:
        with quiet():
            made: Any = torch.onnx.export(
                program, (), input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, dynamo=True, verbose=False
            )
    except Exception as error:  # the exporter's own errors
        raise InputError(
            f"{source.config.architecture} does not export to ONNX ({root_cause(error)}); choose --format safetensors "
            "or torch"
        ) from error
    _describe(made.model, source)
    return made


def _describe(model: Any, source: Source) -> None:
    """Names for people in place of the exporter's, which hold the places of its source files."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(["batch", *value.shape[1:]])
    side, names = source.config.image_size, source.config.label_names
    model.producer_name = "prism-fast"
    model.metadata_props.update(
        {
            "architecture": source.config.architecture,
            "input": f"{INPUT}: float32 (batch, 3, {side}, {side}), RGB, values in [0, 1]; normalisation is inside",
            "output": f"{OUTPUT}: float32 (batch, {source.config.num_classes}), before softmax",
            **({"labels": json.dumps(list(names), ensure_ascii=False)} if names else {}),
        }
    )


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise RunError(f"onnxruntime does not open {FILE} ({root_cause(error)}); choose another --format") from error
