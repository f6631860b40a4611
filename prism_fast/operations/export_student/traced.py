"""The student as one graph from pixels in [0, 1] to logits, and whether a graph gives the student's logits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from prism_engines.gate import THRESHOLDS
from prism_engines.quiet import quiet, root_cause
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from prism_fast.errors import InputError, RunError
from prism_fast.models.classifier import Classifier
from prism_fast.operations.export_student.source import Source

#: Batch sizes that are compared: one, for which tracers like to make graphs of their own, and another than traced.
_COMPARED = (1, 3)
#: The batch that is traced; a size of one would be taken for a constant.
_TRACED = 2


class FromPixels(nn.Module):
    """``(pixels - mean) / std``, then the network; float32 outside, ``dtype`` inside.

    Shapes: pixels (n, 3, s, s) in [0, 1]; returns (n, classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: Classifier, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = copy.deepcopy(classifier.net).to("cpu", dtype)
        self.dtype = dtype
        self.register_buffer("mean", torch.tensor(classifier.config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(classifier.config.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(((pixels - self.mean) / self.std).to(self.dtype))
        return logits.float()


def traced(source: Source, half: bool) -> ExportedProgram:
    """The graph for any batch size, without the places of this machine's source files.

    Raises:
        InputError: the network cannot be traced; the message says why.
    """
    module = FromPixels(source.classifier, torch.float16 if half else torch.float32).eval()
    side = source.config.image_size
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                module, (torch.rand(_TRACED, 3, side, side),), dynamic_shapes=({0: Dim("batch", min=1)},)
            )
    except Exception as error:  # torch's own errors, and whatever a network raises while it is traced
        raise InputError(
            f"{source.config.architecture} cannot be traced for any batch size ({root_cause(error)}); choose --format "
            "safetensors"
        ) from error
    for graph in program.graph_module.modules():
        for node in getattr(getattr(graph, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)
    return program


@torch.no_grad()
def largest_error(name: str, source: Source, run: Callable[[Tensor], Tensor], half: bool) -> float:
    """The largest difference of a logit from eager in float32, over random images in [0, 1].

    Raises:
        RunError: it is above what the precision allows, relative to the largest logit.
    """
    generator, side = torch.Generator().manual_seed(0), source.config.image_size
    pairs = []
    for batch in _COMPARED:
        pixels = torch.rand(batch, 3, side, side, generator=generator)
        pairs.append((run(pixels), source.classifier.net(source.classifier.normalise(pixels))))
    found, wanted = (torch.cat(logits) for logits in zip(*pairs, strict=True))
    # torch's maximum of a NaN and a number is NaN, Python's need not be.
    error, scale = float((found - wanted).abs().max()), float(wanted.abs().max())
    allowed = THRESHOLDS["fp16" if half else "fp32"].rel_error * scale
    if not error <= allowed:  # NaN included
        raise RunError(
            f"{name} does not give the logits of {source.path}: they differ by {error:.2g}, allowed is {allowed:.2g}; "
            + ("export without --half" if half else "choose another --format")
        )
    return error
