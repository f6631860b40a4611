"""RandAugment on a batch: pictures that drew the same operation are changed together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment import operations
from prism_fast.data.augment.operations import Affine
from prism_fast.data.augment.part import Drawn, Floats, Integers, Kernel, in_pieces
from prism_fast.data.batch import Positions
from prism_fast.views.counter import Stream, uniforms

#: The magnitude that means the whole range of an operation.
MOST = 30

#: Parameters of a strength from -1 to 1 (of 0 to 1 where an operation has no direction), a height and a width.
Parameters = Callable[[float, int, int], tuple[float, ...]]


@dataclass(frozen=True)
class Operation:
    """A row of the table: what it is called, which kernel computes it, and the kernel's parameters."""

    name: str
    kernel: str
    parameters: Parameters
    signed: bool = True


def _shear_x(strength: float, height: int, width: int) -> tuple[float, ...]:
    level = 0.3 * strength
    return 1, level, level * height / 2, 0, 1, 0


def _shear_y(strength: float, height: int, width: int) -> tuple[float, ...]:
    level = 0.3 * strength
    return 1, 0, 0, level, 1, level * width / 2


def _translate_x(strength: float, height: int, width: int) -> tuple[float, ...]:
    return 1, 0, -int(150 / 331 * width * strength), 0, 1, 0


def _translate_y(strength: float, height: int, width: int) -> tuple[float, ...]:
    return 1, 0, 0, 0, 1, -int(150 / 331 * height * strength)


def _rotate(strength: float, height: int, width: int) -> tuple[float, ...]:
    cosine, sine = math.cos(math.radians(30 * strength)), math.sin(math.radians(30 * strength))
    return cosine, -sine, 0, sine, cosine, 0


def _factor(strength: float, height: int, width: int) -> tuple[float, ...]:
    return (1 + 0.9 * strength,)


def _levels(strength: float, height: int, width: int) -> tuple[float, ...]:
    return (2.0 ** (8 - round(4 * strength)),)


def _threshold(strength: float, height: int, width: int) -> tuple[float, ...]:
    return (1 - strength,)


def _none(strength: float, height: int, width: int) -> tuple[float, ...]:
    return ()


#: The fourteen operations and ranges of ``torchvision.transforms.v2.RandAugment``, in its order.
TABLE = (
    Operation("identity", "identity", _none, signed=False),
    Operation("shear_x", "affine", _shear_x),
    Operation("shear_y", "affine", _shear_y),
    Operation("translate_x", "affine", _translate_x),
    Operation("translate_y", "affine", _translate_y),
    Operation("rotate", "affine", _rotate),
    Operation("brightness", "brightness", _factor),
    Operation("color", "saturation", _factor),
    Operation("contrast", "contrast", _factor),
    Operation("sharpness", "sharpness", _factor),
    Operation("posterize", "posterize", _levels, signed=False),
    Operation("solarize", "solarize", _threshold, signed=False),
    Operation("autocontrast", "autocontrast", _none, signed=False),
    Operation("equalize", "equalize", _none, signed=False),
)
#: Each kernel is one group of pictures. The first, identity, has none: its pictures stay where they are.
GROUPS = tuple(dict.fromkeys(operation.kernel for operation in TABLE))
_GROUP_OF = np.array([GROUPS.index(operation.kernel) for operation in TABLE])


class RandAugment:
    """A number of operations one after another, each drawn of the table, all of one magnitude, half of them negative.

    As in torchvision, but bilinear, and what comes from outside the picture has the colour ``fill``, as timm has it.

    Reference: Cubuk et al. 2020, RandAugment, section 3; the table is torchvision's.
    """

    def __init__(self, config: AugmentConfig, seed: int, fill: Tensor) -> None:
        self._rounds, self._strength, self._seed = config.rand_augment, config.magnitude / MOST, seed
        affine: Kernel = Affine(fill)
        self._kernels = [affine if name == "affine" else getattr(operations, name) for name in GROUPS[1:]]

    def draw(self, positions: Positions, height: int, width: int) -> Drawn:
        """Of each round the pictures in the order of their groups, their parameters, and the groups' sizes."""
        draws = uniforms(self._seed, Stream.OPERATION, positions, np.int64(0), 2 * self._rounds)
        table = parameter_table(self._strength, height, width)
        tensors: list[Tensor] = []
        counts: list[int] = []
        for first, second in draws.reshape(-1, self._rounds, 2).transpose(1, 2, 0):
            chosen: Integers = (first * len(TABLE)).astype(np.int64)
            order = np.argsort(_GROUP_OF[chosen], kind="stable")
            parameters = table[chosen, (second < 0.5).astype(np.int64)][order]
            tensors += [torch.from_numpy(order), torch.from_numpy(parameters.astype(np.float32))]
            counts += np.bincount(_GROUP_OF[chosen], minlength=len(GROUPS)).tolist()
        return Drawn(tuple(tensors), tuple(counts))

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Pictures in 0..1, changed in place."""
        for turn in range(self._rounds):
            order, parameters = drawn.tensors[2 * turn : 2 * turn + 2]
            counts = drawn.counts[len(GROUPS) * turn : len(GROUPS) * (turn + 1)]
            start = counts[0]  # of the identity
            for kernel, count in zip(self._kernels, counts[1:], strict=True):
                if count:
                    rows, own = order[start : start + count], parameters[start : start + count]
                    images.index_copy_(0, rows, in_pieces(kernel, images.index_select(0, rows), own))
                start += count
        return images


def parameter_table(strength: float, height: int, width: int) -> Floats:
    """Every operation's parameters, in its own direction and against it: (operations, 2, 6)."""
    table = np.zeros((len(TABLE), 2, 6))
    for row, operation in zip(table, TABLE, strict=True):
        for place, sign in enumerate((1, -1)):
            found = operation.parameters(sign * strength if operation.signed else strength, height, width)
            row[place, : len(found)] = found
    return table
