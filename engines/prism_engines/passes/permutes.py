"""Remove permutations that a graph undoes again, such as a norm over channels in a channels-last excursion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from prism_engines.passes.folding import add_constant, clean, constant_of

_aten: Any = torch.ops.aten
_ELEMENTWISE = {
    _aten.add.Tensor,
    _aten.sub.Tensor,
    _aten.mul.Tensor,
    _aten.mul.Scalar,
    _aten.div.Tensor,
    _aten.div.Scalar,
    _aten.pow.Tensor_Scalar,
    _aten.rsqrt.default,
    _aten._to_copy.default,
}
_REDUCTIONS = {_aten.mean.dim, _aten.sum.dim_IntList}


@dataclass
class _Region:
    """Everything between permutations by ``order`` and the permutations that undo them."""

    order: tuple[int, ...]
    entries: set[Node] = field(default_factory=set)
    inside: set[Node] = field(default_factory=set)
    exits: set[Node] = field(default_factory=set)


def _order(node: Node) -> tuple[int, ...] | None:
    """Axes of a permutation, or None for another node."""
    if node.target is not _aten.permute.default:
        return None
    axes: Any = node.args[1]
    return tuple(axis % len(axes) for axis in axes)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))


def _movable(node: Node) -> bool:
    """Whether the operator does the same on permuted axes."""
    if node.target in _REDUCTIONS:
        return len(node.args) > 2 and node.args[2] is True
    return node.target in _ELEMENTWISE or node.target is _aten.expand.default


def _find(start: Node, order: tuple[int, ...]) -> _Region | None:
    """The region around a permutation; None when a node of it must see the permuted axes."""
    region = _Region(order)
    waiting: list[tuple[Node, bool]] = [(start, True)]
    while waiting:
        node, is_input = waiting.pop()
        if node in region.entries | region.inside | region.exits or (is_input and node.op == "get_attr"):
            continue
        found = _order(node)
        if is_input and found == order:
            region.entries.add(node)
        elif not is_input and found == _inverse(order):
            region.exits.add(node)
            continue
        elif _movable(node):
            region.inside.add(node)
            waiting += [(given, True) for given in node.all_input_nodes]
        else:
            return None
        waiting += [(user, False) for user in node.users]
    return region if region.exits else None


def _move(graph: GraphModule, node: Node, order: tuple[int, ...]) -> None:
    """Let an operator work on the axes as they were before the permutation."""
    for held in [given for given in node.all_input_nodes if given.op == "get_attr"]:
        value = constant_of(graph, held)
        assert value is not None
        whole = value.reshape((1,) * (len(order) - value.dim()) + tuple(value.shape))
        node.replace_input_with(held, add_constant(graph, node, whole.permute(_inverse(order))))
    if node.target in _REDUCTIONS:
        axes: Any = node.args[1]
        node.update_arg(1, [order[axis] for axis in axes])
    elif node.target is _aten.expand.default:
        sizes: Any = node.args[1]
        node.update_arg(1, [sizes[axis] for axis in _inverse(order)])


def cancel_permutes(graph: GraphModule) -> None:
    """Where all that follows a permutation is elementwise, or sums over axes, until its inverse: leave both out."""
    for start in list(graph.graph.nodes):
        order = _order(start) if start.users else None
        region = _find(start, order) if order else None
        if region is None:
            continue
        for node in [node for node in graph.graph.nodes if node in region.inside]:
            _move(graph, node, region.order)
        for node in region.entries | region.exits:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    clean(graph)
