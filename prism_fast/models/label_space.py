"""A classifier as that of a label space: as many classes in the same order; one of all of ImageNet also for a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import LabelSpace
from prism_fast.models.class_order import require_label_order
from prism_fast.models.classifier import Classifier
from prism_fast.models.training_loss import warn_of_binary_loss


class ChosenLogits(nn.Module):
    """Some logits of a network, in the order of ``indices``."""

    indices: torch.Tensor

    def __init__(self, net: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("indices", torch.tensor(indices))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Shapes: pixels (n, 3, s, s); returns (n, len(indices))."""
        logits: torch.Tensor = self.net(pixels)
        return logits.index_select(1, self.indices)


def for_label_space(classifier: Classifier, space: LabelSpace) -> Classifier:
    """The classifier whose logits are those of ``space``.

    Of one that knows all classes of which the label space is a part, these logits are kept, and the others are not
    computed where its last layer is linear; softmax is then over the part. Its own network is changed. A warning is
    logged for weights that are known to have been trained with another loss than softmax's.

    Raises:
        InputError: it knows another number of classes, or calls them otherwise.
    """
    warn_of_binary_loss(classifier.config)
    classifier = restricted(classifier, space)
    known, classes = classifier.config.num_classes, len(space.classes)
    if known != classes:
        whole = f", a part of {space.subset_of}, whose teachers would do too" if space.subset_of else ""
        raise InputError(
            f"the teacher knows {known} classes, label space {space.name!r} has {classes}{whole}{_hint(known, space)}"
        )
    require_label_order(classifier.config, space)
    return classifier


def _hint(known: int, space: LabelSpace) -> str:
    """What a teacher of ImageNet is likely to be that has other classes than its 1,000."""
    if "imagenet1k" not in (space.name, space.subset_of):
        return ""
    if known == 1001:
        return (
            "; TensorFlow's models have a background class first: drop row 0 of the last layer and say num_classes 1000"
        )
    if known > 1001:
        return "; it looks like one of ImageNet-21k: take one that was fine-tuned on ImageNet-1k"
    return ""


def restricted(classifier: Classifier, space: LabelSpace) -> Classifier:
    """The classifier with the logits of ``space`` alone, if it knows all that the label space is a part of.

    Raises:
        InputError: its classes stand in another order than those of the whole.
    """
    if space.subset_of is None:
        return classifier
    whole = load_label_space(space.subset_of)
    if classifier.config.num_classes != len(whole.classes):
        return classifier
    require_label_order(classifier.config, whole)
    names = classifier.config.label_names
    update = {
        "num_classes": len(space.indices),
        "label_names": None if names is None else tuple(names[i] for i in space.indices),
    }
    net = _with_logits(classifier.net, space.indices)
    return replace(classifier, net=net, config=classifier.config.model_copy(update=update))


def _with_logits(net: nn.Module, indices: Sequence[int]) -> nn.Module:
    """The network whose last layer gives these logits alone; one without such a layer is asked for all of them."""
    find = getattr(net, "get_classifier", None)  # timm's
    head = find() if callable(find) else None
    path = next((name for name, module in net.named_modules() if module is head), None)
    if not path or type(head) is not nn.Linear:
        device = next(net.parameters()).device
        return ChosenLogits(net, indices).to(device).eval()
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, _rows(head, indices))
    return net


def _rows(layer: nn.Linear, indices: Sequence[int]) -> nn.Linear:
    """A linear layer of some outputs of ``layer``."""
    places = torch.tensor(indices, device=layer.weight.device)
    made = nn.Linear(layer.in_features, len(indices), layer.bias is not None, device="meta")
    made.weight = nn.Parameter(layer.weight.detach()[places], requires_grad=False)
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.detach()[places], requires_grad=False)
    return made.eval()
