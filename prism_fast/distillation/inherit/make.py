"""A student made from the teacher, or one that ends in the teacher's classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from prism_fast.config import DistillConfig
from prism_fast.distillation.inherit.pictures import Pictures
from prism_fast.distillation.inherit.prune import prune
from prism_fast.distillation.inherit.shallow import left_out
from prism_fast.errors import InputError
from prism_fast.models.architecture import create_network, refusal
from prism_fast.models.classifier import Classifier
from prism_fast.models.classifier_config import ClassifierConfig
from prism_fast.models.structure.anatomy import Anatomy, examine
from prism_fast.models.structure.build import build
from prism_fast.models.structure.description import Structure
from prism_fast.models.structure.spliced import Spliced

_State = Mapping[str, Tensor]


def inherited(
    recipe: DistillConfig,
    classes: int,
    teacher: Classifier,
    images: Pictures | None = None,
    gone: tuple[str, ...] | None = None,
) -> Classifier:
    """A student cut out of the teacher as ``recipe.inherit`` says, for pictures of ``recipe.image_size``, on the CPU.

    Its pixels are normalised as the teacher's. ``images`` gives batches of such pictures: the criterion ``gradient``
    and a ``depth`` below 1 need some; ``gone`` says instead which blocks are left out.

    Raises:
        InputError: the teacher has other classes, is no timm network, or cannot be cut or narrowed so.
    """
    anatomy = _anatomy(teacher, classes)
    if gone is None:
        gone = left_out(recipe.inherit.depth, teacher, images, recipe.inherit.blocks)
    structure = _structure(recipe, teacher, anatomy, gone)
    name, size = teacher.config.architecture, recipe.image_size
    net: nn.Module = create_network(name, classes, size) if structure is None else build(name, classes, size, structure)
    _give(net, teacher, structure, size)
    if isinstance(net, Spliced) and net.frozen:
        cut = structure is not None and structure.blocks is not None
        _begin(net.projection, teacher.net, anatomy.tail if cut else ())
    if isinstance(net, Spliced) and recipe.inherit.width < 1:
        prune(net, recipe.inherit, teacher, size, images)
    config = _config(teacher.config, recipe, classes, name, structure)
    _require_size(net, config)
    return Classifier(net.train().requires_grad_(True), config)


def outlined(recipe: DistillConfig, teacher: Classifier) -> nn.Module:
    """The network of :func:`inherited` on the meta device for counting, with all channels and residual blocks.

    Raises:
        InputError: the teacher is no timm network, or cannot be cut so.
    """
    classes, size = teacher.config.num_classes, recipe.image_size
    whole = recipe.model_copy(update={"inherit": recipe.inherit.model_copy(update={"width": 1.0})})
    structure = _structure(whole, teacher, examine(teacher.net, teacher.config.image_size), ())
    name = teacher.config.architecture
    with torch.device("meta"):
        return create_network(name, classes, size) if structure is None else build(name, classes, size, structure)


def ended_in(recipe: DistillConfig, classes: int, teacher: Classifier) -> Classifier:
    """A fresh student whose features are projected into the teacher's own pooling and classifier, which stay.

    Reference: Chen et al. 2022 (SimKD), equation 2.

    Raises:
        InputError: the teacher has other classes or is no timm network, or the student does not fit it.
    """
    anatomy = _anatomy(teacher, classes)
    structure = Structure(
        head="projected",
        activation=anatomy.activation,
        classifier=teacher.config.architecture,
        classifier_options=dict(teacher.options),
    )
    net = build(recipe.student, classes, recipe.image_size, structure)
    _load(net.head, teacher.net.state_dict(), "head", teacher.config.architecture)
    config = _config(teacher.config, recipe, classes, recipe.student, structure)
    _require_size(net, config)
    return Classifier(net.train().requires_grad_(True), config)


def _anatomy(teacher: Classifier, classes: int) -> Anatomy:
    """Of a teacher that can be taken apart."""
    net, config = teacher.net, teacher.config
    if config.num_classes != classes:
        raise InputError(f"the teacher knows {config.num_classes} classes, the shards hold {classes}")
    if config.structure is not None or not timm.is_model(config.architecture) or not hasattr(net, "forward_head"):
        raise InputError(
            f"the teacher ({config.architecture}) is not a whole timm network, so that no student can be made from it; "
            "set distill.student_from to scratch and leave out simkd"
        )
    anatomy = examine(net, config.image_size)
    _require_apart(teacher)
    return anatomy


@torch.no_grad()
def _require_apart(teacher: Classifier) -> None:
    net: Any = teacher.net
    side, weight = teacher.config.image_size, next(net.parameters())
    picture = torch.linspace(-1, 1, 3 * side * side, device=weight.device, dtype=weight.dtype).view(1, 3, side, side)
    if not torch.allclose(net.forward_head(net.forward_features(picture)), net(picture), rtol=1e-3, atol=1e-3):
        raise InputError(f"{teacher.config.architecture} is more than features and a head; it cannot be taken apart")


def _structure(recipe: DistillConfig, teacher: Classifier, anatomy: Anatomy, gone: tuple[str, ...]) -> Structure | None:
    """What the student is; None for the teacher's network as it is."""
    inherit, simkd = recipe.inherit, any(term.name == "simkd" for term in recipe.terms())
    blocks = None if inherit.blocks == len(anatomy.groups) else inherit.blocks
    if blocks is not None and inherit.head == "linear" and simkd:
        raise InputError("simkd ends in the teacher's own classifier; set distill.inherit.head to simkd, not linear")
    if blocks is None and inherit.width < 1 and simkd:
        blocks = len(anatomy.groups) or None  # the projection stands for what comes after them, too
    options = dict(teacher.options)
    if "img_size" in options:
        options["img_size"] = recipe.image_size
    if blocks is not None and inherit.head == "linear":
        return Structure(blocks=blocks, width=inherit.width, left_out=gone, head="linear", options=options)
    if blocks is not None or (inherit.width < 1 and simkd):
        return Structure(
            blocks=blocks,
            width=inherit.width,
            left_out=gone,
            head="projected",
            activation=anatomy.activation,
            classifier=teacher.config.architecture,
            options=options,
            classifier_options=dict(teacher.options),
        )
    changed = inherit.width < 1 or gone or options
    return Structure(width=inherit.width, left_out=gone, options=options) if changed else None


def _config(
    own: ClassifierConfig, recipe: DistillConfig, classes: int, architecture: str, structure: Structure | None
) -> ClassifierConfig:
    return ClassifierConfig(
        architecture=architecture,
        num_classes=classes,
        image_size=recipe.image_size,
        mean=own.mean,
        std=own.std,
        label_names=own.label_names,
        structure=structure,
    )


def _give(net: nn.Module, teacher: Classifier, structure: Structure | None, size: int) -> None:
    """The teacher's weights to whatever of the network is the teacher's, position embeddings resampled by timm."""
    name, state = teacher.config.architecture, teacher.net.state_dict()
    body = net.trunk if isinstance(net, Spliced) else net
    if any(key in state and state[key].shape != value.shape for key, value in body.state_dict().items()):
        state = _resized(teacher, size).state_dict()
    _load(body, state, "network", name)
    if isinstance(net, Spliced) and structure is not None and structure.head != "linear":
        _load(net.head, state, "head", name)


def _resized(teacher: Classifier, size: int) -> nn.Module:
    net: Any = copy.deepcopy(teacher.net)
    if not hasattr(net, "set_input_size"):
        raise InputError(
            f"the teacher ({teacher.config.architecture}) cannot be asked for pictures of {size} px; set "
            f"distill.image_size to {teacher.config.image_size}"
        )
    net.set_input_size(img_size=(size, size))
    resized: nn.Module = net
    return resized


def _load(part: nn.Module, state: _State, what: str, name: str) -> None:
    wanted = part.state_dict()
    unfit = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
    if unfit:
        raise InputError(
            f"the teacher's {unfit[0]} is not that of timm's {name}; its {what} cannot be inherited by a student"
        )
    part.load_state_dict({key: state[key].cpu() for key in wanted})


@torch.no_grad()
def _begin(projection: nn.Module, teacher: nn.Module, tail: tuple[str, ...]) -> None:
    """Of as many channels the identity; scale and shift of the teacher's last norm where it takes that one's place."""
    parts: Any = projection
    layer, norm, _ = parts
    if layer.weight.shape[0] == layer.weight.shape[1]:
        layer.weight.copy_(torch.eye(len(layer.weight)).view_as(layer.weight))
    modules: list[Any] = [module for name in tail for module in teacher.get_submodule(name).modules()]
    affine = [m for m in modules if getattr(m, "weight", None) is not None and m.weight.ndim == 1]
    if affine and affine[-1].weight.shape == norm.weight.shape:
        norm.weight.copy_(affine[-1].weight)
        if affine[-1].bias is not None:
            norm.bias.copy_(affine[-1].bias)


def _require_size(net: nn.Module, config: ClassifierConfig) -> None:
    why = refusal(net.eval(), config.image_size)
    if why is not None:
        raise InputError(
            f"a student made from {config.architecture} cannot see pictures of {config.image_size} px ({why}); set "
            "distill.image_size"
        )
