"""Prompts chosen to cover: of a pool of a class's, those that lie farthest from each other for the text encoder.

Farthest-first traversal (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance") orders a whole pool
so that its first n are within a factor of two of the best n centres, for every n at once. So a longer run begins as a
shorter one does. The p-th pick has the style of the pool's p-th prompt: what is rarest would come first otherwise, and
the share of photographs would not be what was asked for. That constraint is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import torch

from prism_fast.config import RunConfig
from prism_fast.dataset.draws import Draws, equal_part
from prism_fast.labels.load import load_label_space
from prism_fast.prompts.order import Order, in_turn
from prism_fast.prompts.source import Prompts, prompts_of
from prism_fast.synthesis.text_space import TextSpace


def farthest_first(vectors: torch.Tensor, groups: Sequence[str]) -> list[int]:
    """Places of unit vectors (n, d) in order: each is, of its group, the one farthest from all before it.

    The p-th place is one of group ``groups[p]``; the first is 0. Of equals the first is taken.
    """
    similarity = (vectors @ vectors.T).cpu()
    names = {name: torch.tensor([name == group for group in groups]) for name in set(groups)}
    nearest, free = torch.full((len(vectors),), -torch.inf), torch.ones(len(vectors), dtype=torch.bool)
    order: list[int] = []
    for group in groups:
        allowed = free & names[group]
        pick = int(torch.where(allowed, nearest, torch.inf).argmin()) if order else 0
        order.append(pick)
        free[pick] = False
        torch.maximum(nearest, similarity[pick], out=nearest)
    return order


class FarthestFirst:
    """The order of each class's turns by farthest-first traversal, one pool of its sequence after the other."""

    def __init__(self, prompts: Prompts, space: TextSpace) -> None:
        self.prompts, self.space = prompts, space

    def __call__(self, label: int) -> Iterator[int]:
        """The turns of a class."""
        length = self.prompts.lap(label)
        for pool in count():
            rows = [self.prompts.row(0, label, pool * length + step) for step in range(length)]
            places = farthest_first(self.space.vectors([row.prompt for row in rows]), [row.style for row in rows])
            yield from (pool * length + place for place in places)


def drawn(config: RunConfig) -> Draws:
    """Which class and turn each row of a run is that is to begin with this configuration.

    Raises:
        DataError: the model is not there, or is none.
    """
    draws = Draws(len(load_label_space(config.labels).classes))
    if config.prompts.select == "stratified":
        return draws
    return Draws(draws.classes, (equal_part(draws, 0, config.synthesis.images, order_of(config)),))


def order_of(config: RunConfig) -> Order:
    """How a run takes the turns of its classes; to cover, its text encoder is loaded.

    Raises:
        DataError: the model is not there, or is none.
    """
    if config.prompts.select == "stratified":
        return in_turn
    prompts = prompts_of(config.prompts, load_label_space(config.labels), config.seed)
    return FarthestFirst(prompts, TextSpace.load(config))
