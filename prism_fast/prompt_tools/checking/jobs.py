"""What is asked of the generator for each class: every sense of it with the same choices and the same noise."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prism_fast.config import RunConfig
from prism_fast.labels.space import LabelSpace
from prism_fast.prompts.banked import BankPrompts, ClassPrompts
from prism_fast.prompts.row import PlanRow
from prism_fast.prompts.source import Prompts
from prism_fast.prompts.templates import TemplatePrompts

#: Indices that each class has for itself: image j of every sense of class c has the noise of index c · 2²⁰ + j.
MOST_IMAGES = 1 << 20
#: Part of a class's key: raised when the same rows would be stored in another way.
_FORMAT = 1


@dataclass(frozen=True)
class Job:
    """One class: rows sense after sense, ``len(choices)`` of each; ``choices`` are those of every sense."""

    label: int
    name: str
    senses: tuple[str, ...]
    rows: tuple[PlanRow, ...]
    choices: tuple[Mapping[str, str], ...]

    @property
    def images(self) -> int:
        """Images a sense."""
        return len(self.choices)

    def place(self, place: int) -> tuple[int, int]:
        """Sense and turn of a row."""
        return divmod(place, self.images)

    def key(self, settings: str) -> str:
        """SHA-256 of what decides the images of the class: its rows, and how images are made."""
        document = [_FORMAT, settings, self.senses, [asdict(row) for row in self.rows], list(map(dict, self.choices))]
        return _hash(document)


class Senses:
    """The prompts of a run, and those of its classes' other senses."""

    def __init__(self, config: RunConfig, space: LabelSpace) -> None:
        # Made anew, not taken from a cache: in a notebook the bank's file may have been edited meanwhile.
        source = TemplatePrompts if config.prompts.bank is None else BankPrompts
        self.prompts: BankPrompts | TemplatePrompts = source(config.prompts, space, config.seed)
        self.space = space

    def of(self, label: int) -> tuple[str, ...]:
        """A class's sense, then its alternatives."""
        if isinstance(self.prompts, TemplatePrompts):
            return (self.space.classes[label].phrase,)
        entry = self.prompts.classes[label].entry
        return tuple(dict.fromkeys((entry.sense, *entry.alternatives)))

    def job(self, label: int, images: int) -> Job:
        """The first ``images`` prompts of a class, in each of its senses."""
        senses, name = self.of(label), self.space.classes[label].name
        rows = [
            prompts.row(label * MOST_IMAGES + turn, label, turn)
            for prompts in (self._saying(label, sense) for sense in senses)
            for turn in range(images)
        ]
        choices = tuple(self.prompts.choices(label, turn) for turn in range(images))
        return Job(label, name, senses, tuple(rows), choices)

    def _saying(self, label: int, sense: str) -> Prompts:
        """The same prompts where the class means that; what was drawn is shared, for no draw depends on the sense."""
        if isinstance(self.prompts, TemplatePrompts):
            return self.prompts
        other, made = copy.copy(self.prompts), self.prompts.classes[label]
        entry = made.entry.model_copy(update={"sense": sense})
        other.classes = [*self.prompts.classes]
        other.classes[label] = ClassPrompts(entry, made.vocabulary, made.photo_share)
        return other


def settings_hash(
    config: RunConfig, space: LabelSpace, models: Mapping[str, str], engines: Mapping[str, str], gpu: str | None
) -> str:
    """SHA-256 of how images of a prompt are made and judged: what a class's key covers beside its rows."""
    data = config.model_dump(mode="json", include={"seed", "sampling", "engines"})
    del data["sampling"]["device"], data["engines"]["gradient_batch"]
    stored = [config.synthesis.image_format, config.synthesis.quality]
    logits = [len(space.classes), space.subset_of, space.indices]
    return _hash([data, stored, logits, dict(models), dict(engines), gpu])


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
