"""Let a convolution compute only what is kept of it: the derivative of padding crops what was just computed."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from prism_engines.passes.folding import clean

_aten: Any = torch.ops.aten
_VIEWS = {_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default}
_SHUFFLE = [0, 1, 4, 2, 5, 3]
#: Pixels at the left, right, top and bottom, in the order of ``constant_pad_nd``.
Borders = list[int]


def _user(node: Node) -> Node | None:
    """The node's only user."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def _shape(node: Any) -> list[int]:
    return list(node.meta["val"].shape)


def _cropped(node: Node) -> Borders | None:
    """What a negative padding, or a slice of the last two of four axes, cuts off; None for any other node."""
    arguments: Any = node.args
    if node.target is _aten.constant_pad_nd.default:
        pads = arguments[1]
        return [-p for p in pads] if len(pads) == 4 and max(pads) <= 0 else None
    if node.target is not _aten.slice.Tensor or len(arguments) != 4 or arguments[1] not in (2, 3):
        return None
    given, dim, start, end = arguments
    size = _shape(given)
    if len(size) != 4 or start < 0 or end < 0:
        return None
    ends = [start, max(size[dim] - end, 0)]
    return [0, 0, *ends] if dim == 2 else [*ends, 0, 0]


def _shuffle_after(conv: Node) -> tuple[list[Node], int]:
    """The two views of a pixel shuffle that alone reads the convolution, and its factor; none and 1 without one."""
    split = _user(conv)
    axes = _user(split) if split is not None and split.target in _VIEWS else None
    if split is None or axes is None or axes.target is not _aten.permute.default or axes.args[1] != _SHUFFLE:
        return [], 1
    joined = _user(axes)
    if joined is not None and joined.target is _aten.clone.default:
        joined = _user(joined)
    sizes: Any = split.args[1]
    if joined is None or joined.target not in _VIEWS or len(sizes) != 6 or sizes[2] != sizes[3]:
        return [], 1
    return [split, joined], sizes[2]


def _crops_after(node: Node) -> tuple[Node, Borders]:
    """The last of the crops that follow a node, and what they cut off together."""
    total = [0, 0, 0, 0]
    while (user := _user(node)) is not None and (borders := _cropped(user)) is not None:
        node, total = user, [a + b for a, b in zip(total, borders, strict=True)]
    return node, total


def _pads(conv: Node) -> tuple[Any, Borders]:
    """What a convolution reads before any padding, and all of its padding."""
    arguments: Any = conv.args
    given, padding = arguments[0], arguments[4]
    rows, columns = (list(padding) * 2)[:2]  # one number stands for both axes
    own = [columns, columns, rows, rows]
    if isinstance(given, Node) and given.target is _aten.constant_pad_nd.default:
        padded: Any = given.args
        before, more, *value = padded
        if not any(value) and len(more) == 4:
            return before, [a + b for a, b in zip(own, more, strict=True)]
    return given, own


def _pad(graph: GraphModule, conv: Node, given: Any, pads: Borders) -> None:
    """Give a convolution other padding: its own where both ends agree, which engines run fastest."""
    left, right, top, bottom = pads
    own = left == right >= 0 and top == bottom >= 0
    if not own:
        with graph.graph.inserting_before(conv):
            given = graph.graph.call_function(_aten.constant_pad_nd.default, (given, pads, 0.0))
    conv.update_arg(0, given)
    conv.update_arg(4, [top, left] if own else [0, 0])


def _resize(views: list[Node], borders: Borders, factor: int) -> None:
    """Take what is no longer computed off the last axes of a pixel shuffle's two views."""
    width, height = borders[0] + borders[1], borders[2] + borders[3]
    for view, scale in zip(views, (1, factor), strict=False):
        sizes: Any = view.args[1]
        view.update_arg(1, [*sizes[:-2], sizes[-2] - height * scale, sizes[-1] - width * scale])


def crop_convolutions(graph: GraphModule) -> None:
    """Where all that reads a convolution of stride one, shuffled or not, is a crop: pad it by as much less."""
    for conv in list(graph.graph.nodes):
        if conv.target is not _aten.convolution.default or conv.args[3] != [1, 1] or conv.args[6]:
            continue
        views, factor = _shuffle_after(conv)
        whole = views[-1] if views else conv
        kept, borders = _crops_after(whole)
        if not any(borders) or any(b % factor for b in borders):
            continue
        borders = [b // factor for b in borders]
        given, pads = _pads(conv)
        _pad(graph, conv, given, [p - b for p, b in zip(pads, borders, strict=True)])
        _resize(views, borders, factor)
        kept.replace_all_uses_with(whole)
    clean(graph)
