"""Shallower networks: residual blocks go, those first without which the teacher decides as before.

Reference: Veit et al. 2016 for leaving out blocks without training; the greedy order and its measure are ours.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_fast.distillation.inherit.pictures import Pictures, first
from prism_fast.errors import InputError
from prism_fast.models.at_once import at_once
from prism_fast.models.classifier import Classifier
from prism_fast.models.resize import resized
from prism_fast.models.structure.anatomy import examine
from prism_fast.models.structure.residual import leave_out, residual_blocks, without

#: Pictures that a network without a block is judged by.
_PICTURES = 128


def left_out(depth: float, teacher: Classifier, images: Pictures | None, groups: int | None = None) -> tuple[str, ...]:
    """Blocks of the teacher that go so that the part ``depth`` of its residual blocks stays.

    ``images`` gives batches normalised for the teacher. With ``groups`` its first block groups alone are looked at.

    Raises:
        InputError: it has no residual blocks, or there are no pictures.
    """
    if depth == 1:
        return ()
    blocks = removable(teacher, groups)
    if not blocks:
        name = teacher.config.architecture
        raise InputError(f"{name} has no residual block to leave out; set distill.inherit.depth to 1")
    return removal_order(teacher, images, blocks, len(blocks) - round(depth * len(blocks)))


def removable(teacher: Classifier, groups: int | None = None) -> tuple[str, ...]:
    """The residual blocks of the teacher's first block groups, by their paths."""
    within = examine(teacher.net, teacher.config.image_size).groups[:groups]
    return residual_blocks(teacher.net, within, teacher.config.image_size)


@torch.no_grad()
def removal_order(teacher: Classifier, images: Pictures | None, blocks: tuple[str, ...], count: int) -> tuple[str, ...]:
    """``count`` of these blocks, in the order in which they go.

    Each is the one without which, those before it gone too, the mean KL divergence from the teacher is the least.

    Raises:
        InputError: there are no pictures.
    """
    if not count:
        return ()
    shown, net = _shown(teacher, images), copy.deepcopy(teacher.net)
    wanted, gone = _decisions(net, shown), list[str]()
    for _ in range(count):
        rest = {path: _divergence(net, path, shown, wanted) for path in blocks if path not in gone}
        gone.append(min(rest, key=lambda path: rest[path]))
        leave_out(net, gone[-1:])
    return tuple(gone)


def _shown(teacher: Classifier, images: Pictures | None) -> Tensor:
    batches = first(images, _PICTURES)
    if not batches:
        raise InputError(
            "distill.inherit.depth below 1 needs synthetic pictures to choose blocks by, and there are none; set it to "
            "1"
        )
    weight, side = next(teacher.net.parameters()), teacher.config.image_size
    return resized(torch.cat(batches)[:_PICTURES].to(weight.device, weight.dtype), side, side)


def _decisions(net: nn.Module, shown: Tensor) -> Tensor:
    parts = shown.split(at_once(shown.device, len(shown)))
    return torch.cat([net(part) for part in parts]).float().log_softmax(1)


def _divergence(net: nn.Module, path: str, shown: Tensor, wanted: Tensor) -> float:
    with without(net, path):
        found = _decisions(net, shown)
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True).nan_to_num(torch.inf).item()
