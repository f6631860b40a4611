"""An adaptive round: the next images of a run go to the classes, sorts and scenes that its images say it lacks.

Half of the images are shared out equally and half by need, so that no class is starved by a measure that is wrong about
it. In a class, of the next turns that are not spent those are drawn, without replacement, that show what is lacking:
with a weight for each sort, scene or content of (what it lacks / what the class lacks). All constants here are ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prism_fast.dataset.draws import Draws, Ints, Need, Part, placed
from prism_fast.operations.needs import Array, Lacks
from prism_fast.prompts.order import Order, next_turns
from prism_fast.prompts.source import Prompts

#: What the need of a class is given out by; the axes of a vocabulary keep their shares.
SHOWN = ("sort", "scene", "content")
BY_NEED = 0.5
#: A choice's mean counts as if so many samples more had the mean of their class.
PRIOR = 4.0
#: A choice is at most so many times likelier, or less likely, than it was.
MOST = 4.0
#: Turns that are looked at for each that is taken.
LOOKED_AT = 4
#: Of a choice that the teacher has not confirmed in so many samples, more would be lost.
HOPELESS = 8

Weights = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Round:
    """The rows of a round, and what each class was found to need."""

    part: Part
    needs: tuple[Need, ...]


def class_needs(lacks: Lacks, classes: int) -> Array:
    """The mean lack of each class, (classes,); of one without samples, the mean of the others."""
    counts = np.bincount(lacks.label, minlength=classes)
    sums = np.bincount(lacks.label, lacks.value.astype(np.float64), minlength=classes)
    found = sums / np.maximum(counts, 1)
    found[counts == 0] = found[counts > 0].mean()
    return found


def quotas(needs: Array, images: int) -> Ints:
    """How many of the images each class gets, (classes,): largest remainders, equal ones in order of label."""
    share = needs / needs.sum() if needs.sum() > 0 else np.full(len(needs), 1 / len(needs))
    exact = images * ((1 - BY_NEED) / len(needs) + BY_NEED * share)
    found = np.floor(exact).astype(np.int32)
    for label in np.argsort(found - exact, kind="stable")[: images - found.sum()]:
        found[label] += 1
    return found


def choice_weights(choices: Sequence[Mapping[str, str]], values: Array, hopeless: bool) -> Weights:
    """How much likelier each choice is made in one class, by kind of choice.

    Args:
        choices: what each sample of the class shows.
        values: what each of them says is lacking.
        hopeless: whether a choice whose every sample lacks most is given up.
    """
    held: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for made, value in zip(choices, values.tolist(), strict=True):
        for kind in SHOWN:
            if kind in made:
                held[kind][made[kind]].append(value)
    mean = float(values.mean()) if len(values) else 0.0
    return {kind: {name: _weight(own, mean, hopeless) for name, own in of.items()} for kind, of in held.items()}


def _weight(own: Sequence[float], mean: float, hopeless: bool) -> float:
    if hopeless and len(own) >= HOPELESS and min(own) >= 1.0:
        return 1 / MOST
    if mean <= 0:
        return 1.0
    found = (sum(own) + PRIOR * mean) / (len(own) + PRIOR) / mean
    return float(np.clip(found, 1 / MOST, MOST))


def drawn_turns(
    prompts: Prompts, label: int, turns: Sequence[int], weights: Weights, wanted: int, key: tuple[int, int]
) -> list[int]:
    """``wanted`` of the turns, without replacement, those of larger weight likelier.

    Reference: Efraimidis & Spirakis 2006, "Weighted random sampling with a reservoir".
    """
    each = np.array([_product(prompts.choices(label, turn), weights) for turn in turns])
    uniform = np.random.Generator(np.random.Philox(key=[key[0], label], counter=[0, 0, 3, key[1]])).random(len(turns))
    first = np.argsort(-np.log1p(-uniform) / each, kind="stable")[:wanted]
    return [turns[place] for place in first]


def _product(made: Mapping[str, str], weights: Weights) -> float:
    found = 1.0
    for kind, own in weights.items():
        found *= own.get(made.get(kind, ""), 1.0)
    return min(MOST, max(1 / MOST, found))


def allot(
    lacks: Lacks, prompts: Prompts, draws: Draws, order: Order, rows: tuple[int, int], seed: int, hopeless: bool
) -> Round:
    """The rows from ``rows[0]`` to ``rows[1]`` - 1, given out by what is lacking.

    Args:
        lacks: what samples of the run say.
        prompts: the run's.
        draws: what the rows before are.
        order: in which order turns are taken.
        rows: which are given out.
        seed: of the run.
        hopeless: see :func:`choice_weights`.
    """
    start, stop = rows
    classes, spent = draws.classes, draws.spent(start)
    turn_of = draws.arrays(0, start)[1]
    needs = class_needs(lacks, classes)
    shares = quotas(needs, stop - start)
    turns, found = [], []
    for label, wanted in enumerate(shares.tolist()):
        own = np.flatnonzero(lacks.label == label)
        made = [prompts.choices(label, int(turn_of[index])) for index in lacks.index[own]]
        weights = choice_weights(made, lacks.value[own], hopeless)
        next_ones = next_turns(order, label, spent[label], LOOKED_AT * wanted)
        turns.append(drawn_turns(prompts, label, next_ones, weights, wanted, (seed, start)))
        found.append(Need(label=label, need=float(needs[label]), images=wanted, choices=weights))
    labels = _mixed(shares)
    return Round(Part(start, labels, placed(labels, turns)), tuple(found))


def _mixed(shares: Ints) -> Ints:
    """Labels in an order in which every class is spread evenly over the round."""
    labels = np.repeat(np.arange(len(shares), dtype=np.int32), shares)
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in shares.tolist() if n] or [np.empty(0)])
    mixed: Ints = labels[np.lexsort((labels, places))]
    return mixed
