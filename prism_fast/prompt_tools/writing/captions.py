"""Write a bank from captions of pictures: the scenes and sorts that people wrote down, without any server."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import inflect

from prism_fast.errors import DataError
from prism_fast.labels.bank import BankEntry, Kind, Setting, class_keys
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import ClassLabel, LabelSpace
from prism_fast.labels.vocabulary import Vocabulary, VocabularyName, load_vocabulary
from prism_fast.prompt_tools.writing.bank_file import BankFile
from prism_fast.prompt_tools.writing.caption_lines import CaptionLine, caption_lines
from prism_fast.prompt_tools.writing.caption_text import Terms, place_of, said_in
from prism_fast.prompt_tools.writing.request import names_scenes
from prism_fast.prompts.lint import FEWEST_VARIANTS, LONGEST_SENSE, Complaint, lint

#: Sorts and scenes of a class that are kept, the first ones: a choice among them is a 16-bit number in a plan.
MOST = 500
_ENGINE = inflect.engine()
_ARTICLE = re.compile(r"^(a|an|the|some)\s+", re.IGNORECASE)
_STOPS = re.compile(r"[,;:.!?()\"]")


@dataclass(frozen=True)
class FromCaptions:
    """The bank that was written, what the captions gave, and what the linter says.

    ``unused`` captions gave neither scene nor sort; ``bare`` classes have no scene at all.
    """

    classes: int
    captions: int
    unused: int
    scenes: int
    variants: int
    bare: tuple[str, ...]
    complaints: tuple[Complaint, ...]
    out: Path


@dataclass
class _Found:
    """What was found of one class, by lower-cased text, with the lines that said it."""

    label: ClassLabel
    terms: Terms
    plural: str
    kind: tuple[Kind, int] | None = None
    scenes: dict[str, tuple[Setting, str]] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)


def bank_from_captions(labels: str, captions: Path, out: Path, *, axes: VocabularyName = "pictures") -> FromCaptions:
    """Write a bank whose scenes and variants stand in captions; it is written with its complaints, to be corrected.

    Args:
        labels: a bundled label space, or a YAML file.
        captions: JSON lines of ``class``, ``caption`` and, if known, ``kind`` and ``setting``.
        out: the bank.
        axes: the vocabulary that it is checked with.

    Raises:
        InputError: bad labels, no captions, a file at ``out`` that would be lost. DataError: a bad line.
        RunError: the disk refused.
    """
    space, vocabulary, file = load_label_space(labels), load_vocabulary(axes), BankFile.at(out)
    found, count = _gather(space, captions)
    entries = {key: _entry(one, vocabulary) for key, one in zip(class_keys(space), found, strict=True)}
    file.write(entries, captions.name)
    made = list(entries.values())
    return FromCaptions(
        classes=len(made),
        captions=count,
        unused=sum(_unused(one, entry) for one, entry in zip(found, made, strict=True)),
        scenes=sum(len(scenes) for entry in made for scenes in entry.scenes.values()),
        variants=sum(len(entry.variants) for entry in made),
        bare=tuple(one.label.name for one, entry in zip(found, made, strict=True) if not entry.scenes),
        complaints=tuple(lint(entries, vocabulary, scenes=names_scenes(vocabulary))),
        out=out,
    )


def _gather(space: LabelSpace, captions: Path) -> tuple[list[_Found], int]:
    found = {label.name.strip(): _nothing_yet(label) for label in space.classes}
    count = 0
    for number, line in caption_lines(captions):
        one = found.get(line.class_name.strip())
        if one is None:
            raise DataError(f"{captions}, line {number}: {space.name} has no class {line.class_name!r}")
        _take(one, line, f"{captions}, line {number}", number)
        count += 1
    if not count:
        raise DataError(f"{captions} holds no captions; give a JSON object with class and caption a line")
    return list(found.values()), count


def _nothing_yet(label: ClassLabel) -> _Found:
    plural = _plural(label.name)
    return _Found(label, Terms.of(label.name, (plural, *label.concepts, *map(_plural, label.concepts))), plural)


def _take(found: _Found, line: CaptionLine, where: str, number: int) -> None:
    """One more line of the class.

    Raises:
        DataError: its kind is another than an earlier line's.
    """
    if line.kind is not None:
        if found.kind is not None and found.kind[0] != line.kind:
            raise DataError(f"{where}: kind {line.kind!r}, but line {found.kind[1]} says {found.kind[0]!r}")
        found.kind = found.kind or (line.kind, number)
    said = said_in(line.caption, found.terms)
    if said.scene and len(found.scenes) < MOST:
        found.scenes.setdefault(said.scene.lower(), (line.setting or place_of(said.scene), said.scene))
    if said.variant and len(found.variants) < MOST:
        found.variants.setdefault(said.variant.lower(), said.variant)
    found.lines.append(((said.scene or "").lower(), (said.variant or "").lower()))


def _entry(found: _Found, vocabulary: Vocabulary) -> BankEntry:
    """What was found, without the scenes and variants that the linter names."""
    name = found.label.name
    entry = BankEntry(
        name=name,
        plural=found.plural,
        kind=found.kind[0] if found.kind else "object",
        sense=_sense(found.label),
        variants=tuple(found.variants.values()),
        scenes=_by_place(found.scenes.values()),
    )
    problems = [complaint.problem for complaint in lint({name: entry}, vocabulary)]
    bad = "\n".join(problem for problem in problems if problem.startswith(("the scene ", "the variant ")))
    variants = tuple(variant for variant in entry.variants if repr(variant) not in bad)
    scenes = _by_place(pair for pair in found.scenes.values() if repr(pair[1]) not in bad)
    return entry.model_copy(update={"variants": variants if len(variants) >= FEWEST_VARIANTS else (), "scenes": scenes})


def _by_place(scenes: Iterable[tuple[Setting, str]]) -> dict[Setting, tuple[str, ...]]:
    found: dict[Setting, tuple[str, ...]] = {}
    for place, scene in scenes:
        found[place] = (*found.get(place, ()), scene)
    return found


def _unused(found: _Found, entry: BankEntry) -> int:
    """Captions of which the entry holds neither scene nor variant."""
    held = {scene.lower() for scenes in entry.scenes.values() for scene in scenes}
    held |= {variant.lower() for variant in entry.variants}
    return sum(not held & {scene, variant} for scene, variant in found.lines)


def _plural(name: str) -> str:
    """The plural; the name itself if it is one already, as sunglasses are, to which inflect adds another s."""
    plural = str(_ENGINE.plural_noun(name) or name)
    return name if plural.lower().endswith("ss") else plural


def _sense(label: ClassLabel) -> str:
    """The class's sense if it reads as one, else its definition up to a mark, else its name."""
    for text in (label.sense, label.definition):
        phrase = _STOPS.split(_ARTICLE.sub("", text.strip()), maxsplit=1)[0].strip()
        if phrase and phrase.lower() != label.name.lower() and len(phrase.split()) <= LONGEST_SENSE:
            return phrase
    return label.name
