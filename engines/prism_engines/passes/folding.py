"""Make a traced graph smaller without changing what it computes: constants, and scales beside convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

_aten: Any = torch.ops.aten


def constant_of(graph: GraphModule, node: Any) -> torch.Tensor | None:
    """The tensor that a node holds, or None for a node that computes."""
    if not (isinstance(node, Node) and node.op == "get_attr"):
        return None
    value: Any = graph
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value if isinstance(value, torch.Tensor) else None


def add_constant(graph: GraphModule, before: Node, value: torch.Tensor) -> Node:
    """A new node that holds ``value``, in front of ``before``."""
    # Not their count: dropped constants leave gaps, and a name given twice overwrites a weight.
    taken = [int(name.removeprefix("_folded_")) for name in graph._buffers if name.startswith("_folded_")]
    number = max(taken, default=-1) + 1
    graph.register_buffer(f"_folded_{number}", value.detach().clone().contiguous())
    with graph.graph.inserting_before(before):
        return graph.graph.get_attr(f"_folded_{number}")


def clean(graph: GraphModule) -> None:
    """Drop nodes, weights and submodules that nothing uses, and compile what is left."""
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    for store in (graph._buffers, graph._parameters):
        for name in [n for n in store if n not in used]:
            del store[name]
    graph.recompile()


def fold_constants(graph: GraphModule) -> None:
    """Replace every node that depends on constants alone by its value, when a node that does not needs it."""
    values: dict[Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            values[node] = constant_of(graph, node)
        elif node.op == "call_function" and all(n in values for n in node.all_input_nodes):
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
            values[node] = node.target(*args, **kwargs)
    for node, value in values.items():
        needed = any(user not in values for user in node.users)
        if node.op == "call_function" and needed and isinstance(value, torch.Tensor):
            node.replace_all_uses_with(add_constant(graph, node, value))
    clean(graph)


def _per_channel(graph: GraphModule, node: Any, channels: int) -> torch.Tensor | None:
    """The constant (1, channels, 1, 1) as (channels,)."""
    value = constant_of(graph, node)
    return value.reshape(-1) if value is not None and tuple(value.shape) == (1, channels, 1, 1) else None


def _is_convolution(node: Any) -> bool:
    return isinstance(node, Node) and node.target is _aten.convolution.default and not node.args[6]


def _fold_after(graph: GraphModule, node: Node) -> bool:
    """``conv(x) · s`` and ``conv(x) + b`` become a convolution with another weight or bias."""
    conv, other = node.args[0], node.args[1]
    if not (isinstance(conv, Node) and _is_convolution(conv) and len(conv.users) == 1):
        return False
    weight, bias = constant_of(graph, conv.args[1]), constant_of(graph, conv.args[2])
    if weight is None or (conv.args[2] is not None and bias is None):
        return False
    vector = _per_channel(graph, other, weight.shape[0])
    if vector is None:
        return False
    if node.target is _aten.mul.Tensor:
        conv.update_arg(1, add_constant(graph, conv, weight * vector.view(-1, 1, 1, 1)))
        if bias is not None:
            conv.update_arg(2, add_constant(graph, conv, bias * vector))
    else:
        conv.update_arg(2, add_constant(graph, conv, vector if bias is None else bias + vector))
    node.replace_all_uses_with(conv)
    graph.graph.erase_node(node)  # a dead user would keep what follows, a norm's shift, from folding too
    return True


def _fold_before(graph: GraphModule, node: Node) -> bool:
    """``conv(x · s)`` becomes a convolution of ``x`` with another weight."""
    (conv,) = node.users if len(node.users) == 1 else (None,)
    if conv is None or not _is_convolution(conv) or conv.args[0] is not node:
        return False
    weight, groups = constant_of(graph, conv.args[1]), int(conv.args[8])  # type: ignore[arg-type]
    if weight is None:
        return False
    vector = _per_channel(graph, node.args[1], weight.shape[1] * groups)
    if vector is None:
        return False
    per_group = vector.view(groups, 1, -1, 1, 1)
    scaled = (weight.view(groups, -1, *weight.shape[1:]) * per_group).reshape(weight.shape)
    conv.update_arg(1, add_constant(graph, conv, scaled))
    conv.update_arg(0, node.args[0])
    graph.graph.erase_node(node)
    return True


def fold_scales(graph: GraphModule) -> None:
    """Fold constant scales and shifts of channels, what is left of batch norms, into the convolutions beside them."""
    for node in list(graph.graph.nodes):
        if node.target is _aten.mul.Tensor:
            if not _fold_after(graph, node):
                _fold_before(graph, node)
        elif node.target is _aten.add.Tensor and len(node.args) == 2 and not node.kwargs:
            _fold_after(graph, node)
    clean(graph)
