"""The weighted sum of a recipe's terms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from prism_fast.config import losses as config
from prism_fast.distillation.losses.attention import attention_loss
from prism_fast.distillation.losses.crd import CRDTerm
from prism_fast.distillation.losses.dist import dist_loss
from prism_fast.distillation.losses.dkd import dkd_loss
from prism_fast.distillation.losses.features import Featured, network_name
from prism_fast.distillation.losses.fitnet import FitNetTerm
from prism_fast.distillation.losses.hard_label import hard_label_loss
from prism_fast.distillation.losses.inputs import layers
from prism_fast.distillation.losses.kl import kl_loss
from prism_fast.distillation.losses.mlkd import mlkd_loss
from prism_fast.distillation.losses.multi_temperature import multi_temperature_loss
from prism_fast.distillation.losses.nkd import nkd_loss
from prism_fast.distillation.losses.rkd import rkd_loss
from prism_fast.distillation.losses.simkd import SimKDTerm
from prism_fast.distillation.outputs import Labels, Outputs
from prism_fast.errors import InputError

_Compare = Callable[[Outputs, Outputs, Labels], Tensor]


class DistillationLoss(nn.Module):
    """``sum_k weight_k * term_k``. Parts that learn are parameters, queues are buffers: both belong to a checkpoint.

    Attributes:
        wants_maps: whether student and teacher must hand out features (``Featured(net, maps=True)``).

    Args:
        terms: weight and term each.
        wants_maps: whether a term compares features.
    """

    def __init__(self, terms: Sequence[tuple[float, nn.Module]], wants_maps: bool) -> None:
        super().__init__()
        self.weights = tuple(weight for weight, _ in terms)
        self.terms = nn.ModuleList(term for _, term in terms)
        self.wants_maps = wants_maps

    def forward(self, student: Outputs, teacher: Outputs, labels: Labels) -> Tensor:
        """A scalar in float32 at least, in whatever precision the networks computed.

        Raises:
            InputError: shapes do not fit.
        """
        device = student.logits.device.type
        plain = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
        with plain:
            parts = [
                weight * term(student, teacher, labels) for weight, term in zip(self.weights, self.terms, strict=True)
            ]
        return torch.stack(parts).sum()


class _Plain(nn.Module):
    """A term that learns nothing."""

    def __init__(self, compare: _Compare) -> None:
        super().__init__()
        self.compare = compare

    def forward(self, student: Outputs, teacher: Outputs, labels: Labels) -> Tensor:
        return self.compare(student, teacher, labels)


def make_loss(
    terms: tuple[config.Loss, ...],
    student: nn.Module,
    teacher: nn.Module | None,
    classes: int,
    image_size: int,
    teacher_size: int | None = None,
) -> DistillationLoss:
    """The loss that a recipe's terms describe, for these two networks.

    Of terms that compare features, sizes come from one picture through a copy of each network, in eval mode: the
    networks and the random state stay as they are, except for what initialises parts that learn, which torch's global
    generator gives. These parts are made on the CPU, in float32.

    Args:
        terms: at least one.
        student: the bare network.
        teacher: the bare network; only terms that compare features need one.
        classes: of the logits.
        image_size: of the student's pictures.
        teacher_size: of the teacher's, if another.

    Raises:
        InputError: no terms; features wanted without a teacher, or of a network that gives none; a layer or a count of
            channels that does not fit; a term that needs two classes.
    """
    if not terms:
        raise InputError("a loss needs at least one term; set distill.losses, or distill.temperature and label_weight")
    featured = [term.name for term in terms if term.name in config.FEATURE_LOSSES]
    if classes < 2 and (needy := [term.name for term in terms if isinstance(term, config.DKD | config.NKD)]):
        raise InputError(f"{needy[0]} tells the label from other classes, but there is {classes}; use kl")
    if not featured:
        return DistillationLoss([(term.weight, _of_logits(term)) for term in terms], wants_maps=False)
    if teacher is None:
        raise InputError(
            f"{featured[0]} compares features, but there is no teacher network; set distill.teacher to live"
        )
    seen = _glance(student, image_size), _glance(teacher, teacher_size or image_size)
    made = [_of_features(term, *seen) if term.name in featured else _of_logits(term) for term in terms]
    return DistillationLoss([(term.weight, one) for term, one in zip(terms, made, strict=True)], wants_maps=True)


def _of_logits(term: config.Loss) -> nn.Module:
    match term:
        case config.KL():
            return _soft(kl_loss, temperature=term.temperature, standardise=term.standardise)
        case config.MultiTemperature():
            return _soft(multi_temperature_loss, temperatures=term.temperatures)
        case config.DIST():
            return _soft(dist_loss, temperature=term.temperature, beta=term.beta, gamma=term.gamma)
        case config.MLKD():
            return _soft(mlkd_loss, temperatures=term.temperatures)
        case config.HardLabel():
            hard = partial(hard_label_loss, smoothing=term.smoothing)
            return _Plain(lambda student, teacher, labels: hard(student.logits, labels))
        case config.DKD():
            return _labelled(dkd_loss, temperature=term.temperature, alpha=term.alpha, beta=term.beta)
        case config.NKD():
            return _labelled(nkd_loss, temperature=term.temperature, gamma=term.gamma)
    raise InputError(f"no loss of the logits is called {term.name}")


def _soft(loss: Callable[..., Tensor], **constants: object) -> nn.Module:
    return _Plain(lambda student, teacher, labels: loss(student.logits, teacher.logits, **constants))


def _labelled(loss: Callable[..., Tensor], **constants: object) -> nn.Module:
    return _Plain(lambda student, teacher, labels: loss(student.logits, teacher.logits, labels, **constants))


def _of_features(term: config.Loss, student: Outputs, teacher: Outputs) -> nn.Module:
    match term:
        case config.FitNet():
            return FitNetTerm(term.layer, student, teacher)
        case config.AttentionTransfer():
            made = _Plain(partial(_attention, term.layers))
            made(student, teacher, Labels(student.logits))
            return made
        case config.RKD():
            rkd = partial(rkd_loss, distance=term.distance, angle=term.angle)
            return _Plain(lambda student, teacher, labels: rkd(student.pooled, teacher.pooled))
        case config.CRD():
            return CRDTerm(term.dimensions, term.negatives, term.temperature, student, teacher)
        case config.SimKD():
            return SimKDTerm(student, teacher, term.features)
    raise InputError(f"no loss of features is called {term.name}")


def _attention(count: int, student: Outputs, teacher: Outputs, labels: Labels) -> Tensor:
    own, other = (layers(one.maps, count, whose, "attention's layers") for one, whose in
                  ((student, "student"), (teacher, "teacher")))  # fmt: skip
    return attention_loss(own, other)


@torch.no_grad()
def _glance(net: nn.Module, size: int) -> Outputs:
    """What a network gives for one picture. Of a copy: some keep what they computed in eval mode (LeViT)."""
    own = Featured(copy.deepcopy(net).eval(), maps=True)
    like = next(own.parameters())
    picture = torch.linspace(-1, 1, 3 * size * size, dtype=like.dtype, device=like.device).view(1, 3, size, size)
    try:
        outputs: Outputs = own(picture)
    except InputError:
        raise
    except Exception as error:  # each architecture raises what its first layer that minds raises
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{network_name(net)} gives no features of a picture of {size} px: {why}") from error
    return outputs
