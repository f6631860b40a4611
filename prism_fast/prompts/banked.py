"""Prompts from a bank: a class's sorts and scenes, and the axes of a vocabulary, as points of one product.

The rows of a class are points of a Sobol sequence (Joe & Kuo 2008) that is shifted by what (seed, class, lap) draws, so
that its first n rows cover every axis about as well as n rows can. A point that gives a prompt of the same lap again is
left out. A lap has :data:`LAP` prompts, or as many as the product holds; then the next one begins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import qmc

from prism_fast.config import PromptsConfig
from prism_fast.labels.bank import BankEntry, Setting, load_bank
from prism_fast.labels.space import LabelSpace
from prism_fast.labels.vocabulary import Value, Vocabulary, load_vocabulary
from prism_fast.prompts.grammar import noun_phrase
from prism_fast.prompts.row import PlanRow

#: Prompts of a class before one may come again, where its product holds so many.
LAP = 1024
#: Points that a lap is looked for in, as multiples of its length; what is rare in a small product may never be met.
_POINTS = (2, 8, 32)
_FIELD = re.compile(r"{(\w+)}")
_OWN_AXES = ("sort", "scene")

Choices = np.ndarray[Any, np.dtype[np.integer[Any]]]
Points = np.ndarray[Any, np.dtype[np.float64]]


@lru_cache(maxsize=len(_POINTS))
def _sobol(points: int, axes: int) -> Points:
    """The first points of the sequence, (points, axes) in [0, 1)."""
    found: Points = qmc.Sobol(axes, scramble=False).random(points)
    return found


class ClassPrompts:
    """What the prompts of one class are made of.

    A choice is a row of places: of the sort, of the scene, then of each axis's value.
    """

    def __init__(self, entry: BankEntry, vocabulary: Vocabulary, photo_share: float | None) -> None:
        self.entry, self.vocabulary, self.photo_share = entry, vocabulary, photo_share
        self.sorts, self.scenes = (entry.name, *entry.variants), entry.places
        self.axes = list(vocabulary.axes.items())
        self._parts = [(part, _FIELD.findall(part)) for part in vocabulary.form.split(", ")]

    def choices(self, points: Points) -> Choices:
        """What points of the unit cube choose: (n, 2 + axes)."""
        chosen = np.empty(points.shape, np.int64)
        chosen[:, 0] = points[:, 0] * len(self.sorts)
        chosen[:, 1] = points[:, 1] * len(self.scenes)
        settings = np.array([_SETTINGS.index(place) for place, _ in self.scenes])[chosen[:, 1]]
        for setting in np.unique(settings):
            rows = np.flatnonzero(settings == setting)
            for column, (name, values) in enumerate(self.axes, len(_OWN_AXES)):
                places, ends = self._shares(name, values, _SETTINGS[setting])
                chosen[rows, column] = places[np.searchsorted(ends, points[rows, column], "right")]
        return chosen

    def _shares(self, name: str, values: Sequence[Value], place: Setting | None) -> tuple[Choices, Points]:
        """Places of the values that suit, and the upper ends of their shares of 1."""
        fit = [i for i, value in enumerate(values) if value.suits(self.entry, place)]
        if name == "count" and self.entry.uncountable:
            fit = [i for i in fit if values[i].text == "one"]
        weights = np.array([values[i].weight for i in fit])
        photographs = np.array([values[i].photograph for i in fit])
        if self.photo_share is not None and photographs.any() and not photographs.all():
            weights[photographs] *= self.photo_share / weights[photographs].sum()
            weights[~photographs] *= (1 - self.photo_share) / weights[~photographs].sum()
        ends = np.cumsum(weights) / weights.sum()
        return np.array(fit), np.append(ends[:-1], 1.0)

    def lap(self, seed: int, label: int, lap: int, length: int = LAP) -> Choices:
        """The choices of one lap, each once, in the order in which they are taken; of more than there are, all."""
        shift = np.random.Generator(np.random.Philox(key=[seed, label], counter=[0, 0, 2, lap])).random(
            len(_OWN_AXES) + len(self.axes)
        )
        for times in _POINTS:
            points = _sobol(1 << (times * length - 1).bit_length(), len(shift))
            chosen = self.choices((points + shift) % 1.0)
            first = np.sort(np.unique(chosen @ self._radix(), return_index=True)[1])
            if len(first) >= length:
                break
        kept: Choices = chosen[first[:length]].astype(np.int16)
        return kept

    def _radix(self) -> Choices:
        """What makes one number of a choice."""
        sizes = [len(self.sorts), len(self.scenes), *(len(values) for _, values in self.axes)]
        found: Choices = np.cumprod([1, *sizes[:-1]])
        return found

    def words(self, choice: Sequence[int]) -> dict[str, str]:
        """What a choice says, by field of the vocabulary's form."""
        sort, scene = self.sorts[choice[0]], self.scenes[choice[1]][1]
        drawn = {name: values[place].text for (name, values), place in zip(self.axes, choice[2:], strict=True)}
        subject = noun_phrase(self.entry, sort, drawn.get("count", "one"))
        return {**drawn, "sort": sort, "scene": scene, "subject": subject, "name": self.entry.name,
                "sense": self.entry.sense}  # fmt: skip

    def prompt(self, words: dict[str, str]) -> str:
        """The prompt of some words; a part between commas whose fields are all empty is left out."""
        return ", ".join(part.format_map(words) for part, fields in self._parts if all(words[f] for f in fields))


_SETTINGS: tuple[Setting | None, ...] = ("outdoors", "indoors", "underwater", "night", None)


class BankPrompts:
    """The prompts of a label space, as far as they were asked for."""

    def __init__(self, config: PromptsConfig, space: LabelSpace, seed: int) -> None:
        assert config.bank is not None
        self.config, self.space, self.seed = config, space, seed
        vocabulary = load_vocabulary(config.axes)
        own = _OWN_AXES if "{scene}" in vocabulary.form else _OWN_AXES[:1]
        self.style, self.varying = vocabulary.style, (*own, *vocabulary.axes)
        self.classes = [ClassPrompts(e, vocabulary, config.photo_share) for e in load_bank(config.bank, space)]
        self.length = config.pool if config.select == "coverage" else LAP
        self._latest: dict[tuple[int, bool], tuple[int, Choices]] = {}

    def _choice(self, label: int, turn: int) -> list[int]:
        first = self._lap(label, 0)
        lap, step = divmod(turn, len(first))
        # Every lap of a class counts as long as its first one, which may be all that its product holds.
        chosen = self._lap(label, lap) if lap else first
        found: list[int] = chosen[step % len(chosen)].tolist()
        return found

    def _lap(self, label: int, lap: int) -> Choices:
        """Of each class the first lap and the latest one are kept."""
        held = self._latest.get((label, lap > 0))
        if held is None or held[0] != lap:
            held = self._latest[label, lap > 0] = (lap, self.classes[label].lap(self.seed, label, lap, self.length))
        return held[1]

    def lap(self, label: int) -> int:
        """Prompts of a class's first lap, each another one."""
        return len(self._lap(label, 0))

    def choices(self, label: int, turn: int) -> dict[str, str]:
        """Sort, scene where the form names one, and the value of each axis."""
        words = self.classes[label].words(self._choice(label, turn))
        return {name: words[name] for name in self.varying if words[name]}

    def row(self, index: int, label: int, turn: int) -> PlanRow:
        """Row ``index`` of a plan, which is the class's turn ``turn``."""
        made = self.classes[label]
        words = made.words(self._choice(label, turn))
        negative = [self.config.negative, *(made.entry.confusions if self.config.avoid_confusions else ())]
        return PlanRow(
            index=index,
            label=label,
            class_name=self.space.classes[label].name,
            prompt=made.prompt(words),
            style=words[self.style],
            content=", ".join(filter(None, (words["sort"], words["scene"]))),
            negative_prompt=", ".join(filter(None, negative)),
        )
