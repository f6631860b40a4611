"""A network of two parts: features of one network, pooling and classifier of the same or another one.

Reference: Chen et al. 2022, "Knowledge distillation with the reused teacher classifier" (SimKD), figure 2. Its
projector is three convolutions; ours is one of 1x1, as cheap as the layer that it stands for.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from prism_fast.errors import InputError
from prism_fast.models.outputs import Outputs
from prism_fast.models.structure.anatomy import ACTIVATIONS, Anatomy, Layout
from prism_fast.models.structure.description import Activation


class Spliced(nn.Module):
    """``head(projection(trunk(x)))``.

    Attributes:
        trunk: a timm network of which ``forward_features`` is used.
        projection: from its features to those that the head takes; nothing for a head of its own.
        head: has ``forward_head``. ``frozen``: it is another network's, does not learn and stays in eval mode.
    """

    def __init__(
        self, trunk: nn.Module, projection: nn.Module, head: nn.Module, source: Anatomy, target: Layout, frozen: bool
    ) -> None:
        super().__init__()
        self.trunk, self.projection, self.head = trunk, projection, head
        self.frozen, self._layout, self._prefix, self._target = frozen, source.layout, source.prefix, target
        self._levels = _levels(trunk)
        if frozen:
            head.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: images (n, 3, s, s); returns (n, classes)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """What goes into the head, in the head's layout."""
        trunk: Any = self.trunk
        return self._project(trunk.forward_features(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (n, classes) of ``forward_features``; with ``pre_logits`` the classifier's input (n, c)."""
        head: Any = self.head
        found: Tensor = head.forward_head(features, pre_logits=pre_logits)
        return found

    def features(self, images: Tensor) -> Outputs:
        """Logits, the trunk's maps with what goes into the head as the last, and the classifier's input."""
        trunk: Any = self.trunk
        if self._levels:
            features, maps = trunk.forward_intermediates(images, indices=self._levels, output_fmt="NCHW")
        else:
            features, maps = trunk.forward_features(images), []
        features = self._project(features)
        last = as_map(features, self._target, self._prefix)
        if maps and isinstance(self.projection, nn.Identity) and maps[-1].shape == last.shape:
            maps = maps[:-1]  # the same, or the same before a norm
        pooled = self.forward_head(features, pre_logits=True)
        return Outputs(self.forward_head(features), (*maps, last), pooled)

    def _project(self, features: Tensor) -> Tensor:
        if isinstance(self.projection, nn.Identity) or self._target == "NLC":
            projected: Tensor = self.projection(features)
            return projected
        projected = self.projection(as_map(features, self._layout, self._prefix))
        return projected.permute(0, 2, 3, 1) if self._target == "NHWC" else projected

    def train(self, mode: bool = True) -> Spliced:
        """A frozen head stays in eval mode: its statistics are another network's."""
        super().train(mode)
        if self.frozen:
            self.head.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Spliced:
        """A frozen head does not learn."""
        super().requires_grad_(requires_grad)
        if self.frozen:
            self.head.requires_grad_(False)
        return self

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        head: Any = self.head
        found: nn.Module = head.get_classifier()
        return found

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the trunk computes its activations again in the backward pass."""
        trunk: Any = self.trunk
        trunk.set_grad_checkpointing(enable)


class LinearHead(nn.Module):
    """A new classifier: the mean over the picture, a layer norm, a linear layer."""

    def __init__(self, source: Anatomy, classes: int) -> None:
        super().__init__()
        self._dims = {"NCHW": (2, 3), "NHWC": (1, 2), "NLC": (1,)}[source.layout]
        self.norm = nn.LayerNorm(source.channels)
        self.classifier = nn.Linear(source.channels, classes)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Shapes: features as the trunk gives them; returns (n, classes) or (n, c)."""
        pooled: Tensor = self.norm(features.mean(self._dims))
        found: Tensor = pooled if pre_logits else self.classifier(pooled)
        return found

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.classifier


def as_map(features: Tensor, layout: Layout, prefix: int) -> Tensor:
    """Features of any layout as (n, c, h, w); tokens of a square picture, without those before them."""
    if layout == "NCHW":
        return features
    if layout == "NHWC":
        return features.permute(0, 3, 1, 2)
    tokens = features[:, prefix:].transpose(1, 2)
    side = math.isqrt(tokens.shape[2])
    return tokens.reshape(*tokens.shape[:2], side, side)


def projection(source: Anatomy, target: Anatomy, activation: Activation) -> nn.Module:
    """From features of ``source`` to those of ``target``: 1x1 convolution, batch norm (tokens: layer norm), activation.

    Raises:
        InputError: tokens are wanted of maps.
    """
    act = ACTIVATIONS[activation]()
    if target.layout != "NLC":
        layer = nn.Conv2d(source.channels, target.channels, 1, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(target.channels), act)
    if source.layout != "NLC" or source.prefix != target.prefix:
        raise InputError(
            "the teacher's classifier takes tokens as its own network gives them, which this student does not; inherit "
            "from the teacher or choose another loss than simkd"
        )
    linear = nn.Linear(source.channels, target.channels, bias=False)
    return nn.Sequential(linear, nn.LayerNorm(target.channels), act)


def _levels(trunk: nn.Module) -> list[int]:
    """Numbers of timm's feature levels that a cut network still has; none where it cannot give them."""
    info: Any = getattr(trunk, "feature_info", None)
    if info is None or not hasattr(trunk, "forward_intermediates"):
        return []
    rows = getattr(info, "info", info)
    return [number for number, row in enumerate(rows) if _has(trunk, row["module"])]


def _has(net: nn.Module, path: str) -> bool:
    try:
        return not isinstance(net.get_submodule(path), nn.Identity)
    except AttributeError:
        return False
