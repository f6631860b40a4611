"""Networks that hand out what they computed on the way: feature maps, and the vector before the classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from prism_fast.distillation.outputs import Outputs
from prism_fast.errors import InputError


class Featured(nn.Module):
    """A network whose answer is :class:`Outputs`; with ``maps`` false nothing but its logits, at no cost.

    Features come from the network's own method ``features(images) -> Outputs`` if its class has one, else from timm's
    ``forward_intermediates`` (maps of all its stages or blocks, NCHW for transformers too, before their last norm) and
    ``forward_head``.

    Shapes: images (n, 3, h, w).

    Raises:
        InputError: features are wanted of a network that gives none.
    """

    def __init__(self, net: nn.Module, maps: bool = False) -> None:
        super().__init__()
        self.net: Any = net
        self.maps = maps
        self._own = _has_features(net)
        if maps and not self._own and not _has_intermediates(net):
            raise InputError(
                f"{network_name(net)} gives no feature maps (timm's forward_intermediates); use losses of the logits "
                "alone, or another network"
            )

    def forward(self, images: Tensor) -> Outputs:
        """Logits, and features if they are wanted."""
        if not self.maps:
            return Outputs(self.net(images))
        if self._own:
            outputs: Outputs = self.net.features(images)
            return outputs
        last, maps = self.net.forward_intermediates(images)
        # Twice through the head, which is small: families end in too many ways to take theirs apart.
        pooled = self.net.forward_head(last, pre_logits=True)
        return Outputs(self.net.forward_head(last), _whole(maps, last), pooled.flatten(1))


def _whole(maps: list[Tensor], last: Tensor) -> tuple[Tensor, ...]:
    """With what EfficientNets compute after their last stage and before they pool."""
    further = last.ndim == 4 and last.shape[1] != maps[-1].shape[1] and last.shape[2:] == maps[-1].shape[2:]
    return (*maps, last) if further else tuple(maps)


def network_name(net: nn.Module) -> str:
    """Architecture as timm calls it, else the class."""
    described = getattr(net, "pretrained_cfg", None) or {}
    return str(described.get("architecture") or type(net).__name__)


def _has_features(net: nn.Module) -> bool:
    """A method, not a part of this name (VGG, DenseNet)."""
    return callable(getattr(type(net), "features", None))


def _has_intermediates(net: nn.Module) -> bool:
    return all(callable(getattr(net, name, None)) for name in ("forward_intermediates", "forward_head"))
