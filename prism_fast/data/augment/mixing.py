"""Mixup and cutmix of neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from prism_fast.config.augment import AugmentConfig
from prism_fast.data.augment.part import Drawn, Floats, Integers, column, inside
from prism_fast.data.batch import Batch, Positions
from prism_fast.errors import InputError
from prism_fast.views.counter import Stream, uniforms


class Mixing:
    """Pairs of pictures and of their targets, mixed.

    Mixup: ``x_i' = share x_i + (1 - share) x_j`` with ``share ~ Beta(alpha, alpha)``. Cutmix: a box of i, of
    ``1 - share`` of its area and with its middle anywhere, shows j; what sticks out is cut off and ``share`` becomes
    exactly the part of i that is left. Both pictures of a pair get the same share or box. Where both are on each takes
    half of the pairs. The draws are those of the pair's first picture.

    Pairs are rows 0 and ``apart``, 1 and ``apart + 1`` and so on, of every ``2 apart`` rows: where so many views of a
    picture lie behind one another each is mixed with another picture's.

    Logits become ``log(share softmax(own) + (1 - share) softmax(other))``, so that a temperature is applied to the
    mixed distribution. Of a pair that is not mixed they stay what they are.

    Reference: Zhang et al. 2018, mixup, equation 1; Yun et al. 2019, CutMix, equations 1 and 2; pairs as timm's mode
        ``pair``.
    """

    def __init__(self, config: AugmentConfig, seed: int, apart: int = 1) -> None:
        self._config, self._seed, self._apart = config, seed, apart

    def draw(self, positions: Positions, height: int, width: int) -> Drawn:
        """Of each pair: its share, what remains of a picture's own outside the box, and the box, empty for mixup.

        Raises:
            InputError: a picture is left without a partner.
        """
        if len(positions) % (2 * self._apart):
            raise InputError(
                f"mixup and cutmix mix pairs of pictures of {self._apart} views each, got a batch of {len(positions)}; "
                f"give every rank a multiple of {2 * self._apart}"
            )
        first = positions.reshape(-1, 2, self._apart)[:, 0].ravel()
        draws = uniforms(self._seed, Stream.MIX, first, np.int64(0), 5)
        found = pairs(draws, self._config, height, width)
        outside = np.where(found.cut, 1.0, found.share)
        # In a row of memory the three channels of a pixel lie side by side.
        return Drawn((column(found.share), column(outside), torch.from_numpy(found.boxes * (1, 1, 3, 3))))

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """The mixed pictures, new ones; both lie in channels-last memory."""
        _, outside, found = drawn.tensors
        rows = images.permute(0, 2, 3, 1).flatten(2)  # a view: along memory the CPU mixes four times as fast
        if self._config.mixup:
            own = outside.view(-1, self._apart, 1, 1)
            rows = exchanged(rows, self._apart, lambda a, b, out: torch.lerp(b, a, own, out=out))
        if self._config.cutmix:
            box = inside(found, *rows.shape[1:]).unflatten(0, (-1, self._apart))[:, :, 0]
            rows = exchanged(rows, self._apart, lambda a, b, out: torch.where(box, b, a, out=out))
        mixed: Tensor = rows.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)
        return mixed

    def targets(self, batch: Batch, drawn: Drawn) -> Batch:
        """The batch with the other's labels, the share, and mixed logits."""
        share = drawn.tensors[0].view(-1, 1, self._apart).expand(-1, 2, -1).flatten()
        logits = mixed_logits(batch.logits, partner(batch.logits, self._apart), share)
        return replace(batch, logits=logits, other_labels=partner(batch.labels, self._apart), share=share)


@dataclass(frozen=True)
class Pairs:
    """What happens to pairs: share (n,), whether a box is exchanged (n,), boxes (n, 4): top, bottom, left, right."""

    share: Floats
    cut: np.ndarray[Any, np.dtype[np.bool_]]
    boxes: Integers


def pairs(draws: Floats, config: AugmentConfig, height: int, width: int) -> Pairs:
    """Pairs of draws (n, 5): whether at all, which of both, the share, and the middle of the box."""
    mixed = draws[:, 0] < config.mix_probability
    # All where it is alone, half where it is not.
    cut = mixed & (draws[:, 1] < (0.5 if config.mixup and config.cutmix else float(config.cutmix > 0)))
    share = np.where(cut, beta(config.cutmix, draws[:, 2]), beta(config.mixup, draws[:, 2]))
    boxes = np.where(cut[:, None], cut_boxes(share, draws[:, 3:], height, width), 0)
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    share = np.where(cut, 1 - area / (height * width), np.where(mixed, share, 1.0))
    return Pairs(share, cut, boxes)


def beta(alpha: float, draws: Floats) -> Floats:
    """Draws of Beta(alpha, alpha) from uniform ones, by its inverse distribution function; 1 where alpha is 0."""
    if not alpha:
        return np.ones_like(draws)
    found: Floats = betaincinv(alpha, alpha, draws)
    return found


def cut_boxes(share: Floats, middles: Floats, height: int, width: int) -> Integers:
    """Boxes of ``1 - share`` of the picture around uniform middles, cut off at its edges."""
    side = np.sqrt(1 - share)
    ends = []
    for place, length in enumerate((height, width)):
        half, middle = np.floor(length * side).astype(np.int64) // 2, (middles[:, place] * length).astype(np.int64)
        ends += [np.clip(middle - half, 0, length), np.clip(middle + half, 0, length)]
    return np.stack(ends, axis=1)


def exchanged(rows: Tensor, apart: int, mix: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """``mix(own, other, out)`` of every row and its partner, each (n / 2 apart, apart, ...)."""
    mixed = torch.empty_like(rows)
    (a, b), (first, second) = (x.unflatten(0, (-1, 2, apart)).unbind(1) for x in (rows, mixed))
    mix(a, b, first)
    mix(b, a, second)
    return mixed


def partner(rows: Tensor, apart: int = 1) -> Tensor:
    """Each row's partner in its place; where ``apart`` is 1 row i ^ 1."""
    found: Tensor = rows.unflatten(0, (-1, 2, apart)).flip(1).flatten(0, 2)
    return found


def mixed_logits(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """``log(share softmax(own) + (1 - share) softmax(other))``; ``own`` as they are where the share is 1.

    Shapes: own and other (n, classes), share (n,). Dtypes: float32.
    """
    part = share[:, None]
    mixed = torch.logaddexp(own.log_softmax(1) + part.log(), other.log_softmax(1) + (1 - part).log())
    return torch.where(part < 1, mixed, own)
