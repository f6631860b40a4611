"""Let ReLU6's derivative look at what ReLU6 gave, not at what it took: engines then fuse it into its convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from prism_engines.passes.folding import clean

_aten: Any = torch.ops.aten
#: What autograd leaves around a tensor that an in-place activation was about to overwrite.
_SAME = {_aten.clone.default, _aten.detach_.default}


def _source(node: Node) -> Node:
    """The node whose value this one repeats."""
    while node.target in _SAME:
        node = node.all_input_nodes[0]
    return node


def compare_clamped(graph: GraphModule) -> None:
    """``x > low`` and ``x < high`` say the same of ``y = clamp(x, low, high)``; ``x`` itself need not be kept."""
    clamps: dict[Any, Node] = {}  # those that come before what is looked at
    for node in graph.graph.nodes:
        if node.target is _aten.clamp.default and len(node.args) == 3 and None not in node.args:
            clamps[node.args[0]] = node
        if node.target not in (_aten.gt.Scalar, _aten.lt.Scalar):
            continue
        clamp = clamps.get(_source(node.args[0]))
        if clamp is not None and node.args[1] == clamp.args[1 if node.target is _aten.gt.Scalar else 2]:
            node.update_arg(0, clamp)
    clean(graph)
