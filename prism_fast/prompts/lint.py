"""What is wrong with a prompt bank: form, grammar, senses that name another class, prompts that are too long."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from prism_fast.labels.bank import BankEntry, Setting
from prism_fast.labels.vocabulary import Vocabulary
from prism_fast.prompts.banked import ClassPrompts
from prism_fast.prompts.grammar import is_plural_of

LONGEST_SENSE, LONGEST_SCENE, FEWEST_VARIANTS, FEWEST_SCENES = 12, 14, 4, 8
#: Of the 77 that CLIP's encoder takes, its begin and end included: the rest is for other tokenizers.
MOST_TOKENS = 60
#: Prompts of a class that are counted for their length.
COUNTED = 128
_ARTICLE = re.compile(r"(a|an|the|some)\s", re.IGNORECASE)
_STOPS = re.compile(r"[,;:.!?()\"]")
#: What is right after one of a thing and wrong after several, or the other way round.
_NUMBERED = re.compile(r"\b(its|their|it|they|them|is|are|was|were|has|have|itself|themselves)\b")

#: What follows the noun that a sense is about.
_AFTER_NOUN = re.compile(
    r"\b(with|without|that|which|who|whose|of|for|in|on|at|from|to|by|over|under|up|around|between|inside|into|through|"
    r"and|or|worn|hung|held|used|made|kept|served|covered|shaped|filled)\b"
)

Tokens = Callable[[str], int]


@dataclass(frozen=True)
class Complaint:
    """What is wrong with the entry of a class; ``key`` is that of the bank."""

    key: str
    problem: str


def lint(
    entries: Mapping[str, BankEntry], vocabulary: Vocabulary, tokens: Tokens | None = None, scenes: bool = True
) -> Iterator[Complaint]:
    """Everything that is wrong, class by class.

    Args:
        entries: the bank, by key.
        vocabulary: the axes that its prompts are made with.
        tokens: how many tokens a prompt has; None leaves lengths out.
        scenes: whether the vocabulary's form names scenes, so that each class needs some.
    """
    names = Counter(entry.name.lower() for entry in entries.values())
    for key, entry in entries.items():
        problems = [*_of_names(entry, names), *_of_senses(entry, names), *_of_variants(entry)]
        if "count" in vocabulary.axes:
            problems += _of_sentences(entry)
        if scenes:
            problems += _of_scenes(entry)
        problems += _of_prompts(ClassPrompts(entry, vocabulary, None), tokens)
        yield from (Complaint(key, problem) for problem in problems)


def _of_names(entry: BankEntry, names: Counter[str]) -> Iterator[str]:
    if names[entry.name.lower()] > 1:
        yield f"another class is called {entry.name!r}, too"
    if _STOPS.search(entry.name) or _ARTICLE.match(entry.name):
        yield f"the name {entry.name!r} has an article, or a mark that prompts cannot have"
    if entry.plural is not None and not is_plural_of(entry.plural, entry.name):
        yield f"{entry.plural!r} is no plural of {entry.name!r}"


def _of_senses(entry: BankEntry, names: Iterable[str]) -> Iterator[str]:
    others = [name for name in names if name not in entry.name.lower()]
    for sense in (entry.sense, *entry.alternatives):
        if len(sense.split()) > LONGEST_SENSE:
            yield f"the sense {sense!r} has {len(sense.split())} words, {LONGEST_SENSE} are the most"
        if _STOPS.search(sense) or _ARTICLE.match(sense):
            yield f"the sense {sense!r} has an article in front, or a mark that prompts cannot have"
        noun = _AFTER_NOUN.split(sense.lower(), maxsplit=1)[0].strip()
        yield from (
            f"the sense {sense!r} is another class: {name}" for name in others if f" {noun}".endswith(f" {name}")
        )


def _of_variants(entry: BankEntry) -> Iterator[str]:
    if 0 < len(entry.variants) < FEWEST_VARIANTS:
        yield f"{len(entry.variants)} variants; {FEWEST_VARIANTS} are the fewest, or none"
    if repeated := [one for one, count in Counter(map(str.lower, entry.variants)).items() if count > 1]:
        yield f"the variant {repeated[0]!r} is there twice"
    for variant in entry.variants:
        if _STOPS.search(variant) or _ARTICLE.match(variant) or variant.lower() == entry.name.lower():
            yield f"the variant {variant!r} has an article, a mark that prompts cannot have, or is the name"


def _of_sentences(entry: BankEntry) -> Iterator[str]:
    """What a prompt that is a sentence needs: it says both name and sense, and a variant's plural is the name's."""
    last = entry.name.split()[-1].lower()
    if entry.sense.lower() == entry.name.lower():
        yield "the sense is the name again"
    yield from (f"the variant {v!r} does not end with {last!r}" for v in entry.variants if not v.lower().endswith(last))


def _of_scenes(entry: BankEntry) -> Iterator[str]:
    found = [scene for _, scene in entry.places if scene]
    if len(found) < FEWEST_SCENES:
        yield f"{len(found)} scenes; {FEWEST_SCENES} are the fewest"
    if repeated := [one for one, count in Counter(map(str.lower, found)).items() if count > 1]:
        yield f"the scene {repeated[0]!r} is there twice"
    for scene in found:
        if len(scene.split()) > LONGEST_SCENE:
            yield f"the scene {scene!r} has {len(scene.split())} words, {LONGEST_SCENE} are the most"
        if numbered := _NUMBERED.search(scene):
            yield f"the scene {scene!r} is not right after one and several: {numbered[0]!r}"
        if _ARTICLE.match(scene):
            yield f"the scene {scene!r} begins with an article; it follows the noun"


def _of_prompts(prompts: ClassPrompts, tokens: Tokens | None) -> Iterator[str]:
    settings = {place for place, _ in prompts.scenes}
    for name, values in prompts.axes:
        for place in (one for one in (*get_args(Setting), None) if one in settings):
            if not any(value.suits(prompts.entry, place) for value in values):
                yield f"no value of the axis {name!r} suits a {prompts.entry.kind} {place}"
                return
    if tokens is None:
        return
    made = [prompts.prompt(prompts.words(choice)) for choice in prompts.lap(0, 0, 0)[:COUNTED].tolist()]
    longest = max(made, key=tokens)
    if (count := tokens(longest)) > MOST_TOKENS:
        yield f"a prompt has {count} tokens, {MOST_TOKENS} are the most: {longest!r}"
