"""A part's computation without autograd, in any precision, as a module and as ONNX, each made at most once."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prism_engines.spec import EngineSpec, Precision

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Graph:
    """What a backend builds from.

    Args:
        spec: inputs and outputs.
        trace: ``precision -> module`` whose forward takes the spec's inputs and returns a tuple of its outputs, with
            weights in that precision and no need of autograd.
        inputs: example inputs that fit the spec.
        scratch: directory for exported files; it belongs to the graph until its maker removes it.
    """

    def __init__(
        self,
        spec: EngineSpec,
        trace: Callable[[Precision], nn.Module],
        inputs: tuple[torch.Tensor, ...],
        scratch: Path,
    ) -> None:
        self.spec, self.inputs, self.scratch = spec, inputs, scratch
        self._trace = trace
        self._modules: dict[Precision, nn.Module] = {}

    def module(self, precision: Precision) -> nn.Module:
        """The computation with weights in ``precision``."""
        if precision not in self._modules:
            self._modules[precision] = self._trace(precision).eval()
        return self._modules[precision]

    def onnx(self, precision: Precision) -> Path:
        """The same as an ONNX file, with external data beside it when it is above 2 GB."""
        from prism_engines.onnx_export import export_onnx

        path = self.scratch / f"{self.spec.part}-{precision}" / "model.onnx"
        if not path.exists():
            export_onnx(self.module(precision), self.inputs, self.spec, path)
        return path


def code_identity(sources: Iterable[str]) -> str:
    """SHA-256 of what Python sources do: comments, layout and docstrings do not count.

    Raises:
        SyntaxError: a source is not Python.
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(b"\0" + repr(_form(ast.parse(source))).encode())
    return digest.hexdigest()


def _form(node: Any) -> Any:
    """A syntax tree as nested tuples, without its empty fields: every new Python adds some."""
    if isinstance(node, list):
        return tuple(_form(one) for one in node)
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    return type(node).__name__, *((name, _form(value)) for name, value in fields.items() if value not in (None, []))


@functools.cache
def _tracing_code() -> str:
    """What turns a module into a graph: with another lowering it is another engine."""
    package = resources.files("prism_engines")
    files = [
        package / "vjp.py",
        package / "primitives.py",
        *(package / "passes").iterdir(),
        *(package / "lowerings").iterdir(),
    ]
    return code_identity(f.read_text("utf-8") for f in sorted(files, key=str) if f.name.endswith(".py"))


def graph_hash(module: nn.Module, *more: str) -> str:
    """SHA-256 of a module's structure, torch's version, our tracing code and ``more``: whatever decides the graph."""
    digest = hashlib.sha256(repr(module).encode())
    for text in (torch.__version__, _tracing_code(), *more):
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the names, shapes and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
