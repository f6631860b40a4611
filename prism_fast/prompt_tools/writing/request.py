"""What a model is asked about one class, and the key that its answer is kept under."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prism_fast.labels.bank import KINDS, class_keys
from prism_fast.labels.space import ClassLabel, LabelSpace
from prism_fast.labels.vocabulary import Vocabulary, VocabularyName, load_vocabulary
from prism_fast.prompt_tools.writing.answer import answer_schema
from prism_fast.prompts.lint import FEWEST_SCENES, FEWEST_VARIANTS, LONGEST_SCENE, LONGEST_SENSE

#: Classes of a space whose names all stand in each request; of a larger one the nearest do.
ALL_NAMED = 64

_TASK = f"""\
You write one entry of a prompt bank: the words from which prompts for a text-to-image model are put together, so that
its pictures of one class vary and never show another class. A prompt reads like
"a photo of two yellow construction cranes, the tall steel machine that lifts loads on building sites, beside an
unfinished tower, seen from below, in evening light".

Answer with one JSON object and nothing else. It has these keys, all of them:
- name: what people call the thing, in the singular, without an article. Plain words, no brackets, no commas. If the
  class's own name also means something else, choose a name that does not.
- plural: the plural of that name, for which only its last word changes as English grammar says; null if the thing
  cannot be counted, as with mud.
- kind: the one that fits best of {", ".join(KINDS)}.
- sense: a noun phrase without an article, at most {LONGEST_SENSE} words and no punctuation, that says what is seen and
  is true of this class only. It follows "the" and does not begin with the name, and its noun is not the name of
  another class.
- alternatives: none to three more phrases of the same form as the sense.
- variants: visibly different sorts, colours, ages or makes; at least {FEWEST_VARIANTS}, better eight, or an empty list
  if there are none. No article; each ends with exactly the name: "mobile construction crane".
- scenes: where it is found and what it does there, by place: outdoors, indoors, underwater, night. {{scenes}} Each
  follows the noun, begins with a preposition or a word in -ing, has at most {LONGEST_SCENE} words and no full stop:
  "on a beach", "lifting a steel beam". It must be right after one thing and after several of them: no its, their, it,
  is, are, has, have. A place where the class is never found stays an empty list.
- confusions: what a picture must not show instead, two to six short names; first those of the other classes that look
  or sound like this one.
All words are English."""
_WITH_SCENES = f"At least {FEWEST_SCENES} in all, better fifteen, each different."
_WITHOUT_SCENES = "These prompts name no scenes: leave all four lists empty."


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Request:
    """What is asked about the class whose key in the bank is ``key``.

    One message of the user: not every model's template knows a system's.
    """

    key: str
    label: ClassLabel
    messages: tuple[Message, ...]

    def digest(self, model: str) -> str:
        """SHA-256 of the model and all that it is asked; not of where it is served."""
        asked = [model, [[message.role, message.content] for message in self.messages], answer_schema()]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def requests_of(space: LabelSpace, axes: VocabularyName) -> tuple[Request, ...]:
    """The request of each class, by label."""
    vocabulary = load_vocabulary(axes)
    task = _TASK.format(scenes=_WITH_SCENES if names_scenes(vocabulary) else _WITHOUT_SCENES)
    parts = zip(class_keys(space), space.classes, _others(space.classes), strict=True)
    return tuple(
        Request(key, label, (Message("user", f"{task}\n\n{_about(label, others)}"),)) for key, label, others in parts
    )


def names_scenes(vocabulary: Vocabulary) -> bool:
    """Whether prompts of this form need scenes."""
    return "{scene}" in vocabulary.form


def _about(label: ClassLabel, others: Sequence[str]) -> str:
    lines = [f"The class: {label.name}"]
    lines += [f"Meant is: {label.sense}"] if label.sense else []
    lines += [f"Definition: {label.definition}"] if label.definition else []
    lines += [f"It holds, among others: {', '.join(label.concepts)}"] if label.concepts else []
    lines += [f"Other classes, which it must not be taken for: {'; '.join(others)}"] if others else []
    return "\n".join(lines)


def _others(classes: Sequence[ClassLabel]) -> Iterator[list[str]]:
    """For each class the names of the others, of many those that share most of their letters with it."""
    names = [label.name for label in classes]
    if len(names) <= ALL_NAMED:
        yield from ([other for other in names if other != name] for name in names)
        return
    grams = [_trigrams(name) for name in names]
    for place, own in enumerate(grams):
        shared = ((len(own & other) / len(own | other), -i) for i, other in enumerate(grams) if i != place)
        yield [names[-i] for _, i in heapq.nlargest(ALL_NAMED - 1, shared)]


def _trigrams(name: str) -> frozenset[str]:
    padded = f"  {name.lower()} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))
