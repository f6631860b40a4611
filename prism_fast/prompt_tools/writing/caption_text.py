"""What one caption says of a class: its scene, and the sort that it names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from prism_fast.labels.bank import Setting

LONGEST = 12


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREPOSITIONS = _words(
    "aboard above across against along alongside amid among around at before behind below beneath beside between "
    "beyond by down during from in inside into near next off on onto opposite out outside over past through toward "
    "towards under underneath up upon with within without"
)
_NO_PARTICIPLES = _words("string spring wedding morning evening ceiling clothing something nothing")
#: What cannot stand between an article and the sort of a thing.
_NO_MODIFIER = _PREPOSITIONS | _words(
    "a an the of and or but is are was were has have that which who while photo picture image painting drawing one "
    "two this these my your his her its their"
)
_MARKS = re.compile(r"[,;:.!?()\"]")
_LEADS = re.compile(r"^[\s,]*(?:(?:is|are|was|were)\s+)?", re.IGNORECASE)
_WORD = re.compile(r"[\w'’-]+")
#: The last article before the name, and the words between them.
_BEFORE = re.compile(r".*\b(?:a|an|the)\s+((?:[\w'’-]+\s+){1,4})$", re.IGNORECASE | re.DOTALL)
#: The first set that shares a word with a scene says where it is.
_PLACES: tuple[tuple[Setting, frozenset[str]], ...] = (
    ("underwater", _words("underwater seabed reef coral kelp seafloor submerged")),
    ("night", _words("night midnight moonlight moonlit starry neon floodlit")),
    (
        "indoors",
        _words(
            "indoors inside room kitchen bedroom bathroom hallway table desk shelf shelves counter sofa bed carpet "
            "rug studio museum office shop store aquarium ceiling floor cupboard drawer fireplace windowsill gym "
            "workshop classroom library restaurant cafe hangar warehouse"
        ),
    ),
)


@dataclass(frozen=True)
class Terms:
    """What a class is called: ``name`` in the singular, and all words that stand for it, the longest first."""

    name: str
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, name: str, others: Iterable[str]) -> Terms:
        """Those of a class, with its plural and its concepts."""
        every = sorted({name.lower(), *map(str.lower, others)}, key=lambda term: (-len(term), term))
        either = "|".join(r"\s+".join(map(re.escape, term.split())) for term in every)
        return cls(name, re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE))


@dataclass(frozen=True)
class Said:
    """What of a caption can be used."""

    scene: str | None = None
    variant: str | None = None


def said_in(caption: str, terms: Terms) -> Said:
    """The scene after the class's name, and the sort that "a SORT NAME" names."""
    found = terms.pattern.search(caption)
    if found is None:
        return Said()
    named = " ".join(found[0].lower().split()) == terms.name.lower()
    return Said(_scene(caption[found.end() :]), _variant(caption[: found.start()], terms.name) if named else None)


@lru_cache(maxsize=65_536)
def place_of(scene: str) -> Setting:
    """Where a scene is, by its words; outdoors if none of them says."""
    words = set(_WORD.findall(scene.lower()))
    return next((place for place, known in _PLACES if words & known), "outdoors")


def _scene(rest: str) -> str | None:
    phrase = _MARKS.split(_LEADS.sub("", rest), maxsplit=1)[0]
    words = phrase.split()
    if not 2 <= len(words) <= LONGEST:
        return None
    first = words[0].lower()
    participle = first.endswith("ing") and len(first) > len("thing") and first not in _NO_PARTICIPLES
    begins = first in _PREPOSITIONS or participle
    return " ".join([first, *words[1:]]) if begins else None


def _variant(before: str, name: str) -> str | None:
    found = _BEFORE.match(before)
    if found is None or set(found[1].lower().split()) & _NO_MODIFIER:
        return None
    return f"{' '.join(found[1].split())} {name}"
