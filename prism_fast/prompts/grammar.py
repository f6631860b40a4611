"""English: articles, plurals and numbers of noun phrases."""

from __future__ import annotations

from functools import lru_cache

import inflect

from prism_fast.labels.bank import BankEntry
from prism_fast.labels.vocabulary import COUNTS

#: What inflect does not know.
_IRREGULAR = (
    ("Bouvier des Flandres", "Bouviers des Flandres"),
    ("kuvasz", "kuvaszok"),
    ("meatloaf", "meatloaves"),
    ("pickelhaube", "pickelhauben"),
)


def _engine(classical: bool = False) -> inflect.engine:
    made = inflect.engine()
    made.classical(all=classical)
    for singular, plural in _IRREGULAR:
        made.defnoun(singular, plural)
    return made


_ENGINE, _CLASSICAL = _engine(), _engine(classical=True)


@lru_cache(maxsize=65_536)
def with_article(phrase: str) -> str:
    """A singular noun phrase with its indefinite article: an hourglass, a unicycle."""
    found: str = _ENGINE.a(phrase)
    return found


@lru_cache(maxsize=65_536)
def plural_of(phrase: str, name: str, plural: str) -> str:
    """The plural of a sort of something that is called ``name``, many of which are ``plural``."""
    if phrase.lower().endswith(name.lower()):
        return phrase[: len(phrase) - len(name)] + plural
    found: str = _ENGINE.plural_noun(phrase)
    return found


def noun_phrase(entry: BankEntry, sort: str, count: str) -> str:
    """What a picture shows: ``sort`` of the class, one or several of it; what cannot be counted has no number."""
    if entry.uncountable:
        return sort
    if count == "one" or entry.plural is None:
        return with_article(sort)
    return f"{COUNTS[count]} {plural_of(sort, entry.name, entry.plural)}"


def is_plural_of(plural: str, name: str) -> bool:
    """Whether many of ``name`` may be called so: as the rules of English say, or unchanged as fish and sheep are."""
    *rest, last = name.split(" ")
    *same, many = plural.split(" ")
    if rest and same == rest and is_plural_of(many, last):
        return True
    known = (name, _ENGINE.plural_noun(name), _CLASSICAL.plural_noun(name))
    return plural in known or bool(_ENGINE.singular_noun(plural) == name)
