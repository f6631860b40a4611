"""What varies in a picture whatever it shows: axes of weighted values, each with the classes and places it suits."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prism_fast.errors import ConfigError
from prism_fast.labels.bank import BankEntry, Kind, Setting
from prism_fast.storage.yaml_document import load_yaml

VocabularyName = Literal["emoji", "pictures"]
#: How many there are: what stands before the plural; "one" is the singular with its article.
COUNTS = {"one": "", "two": "two", "three": "three", "several": "several", "group": "a group of"}


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Value(_Document):
    """One value of an axis; empty ``kinds`` and ``places`` suit all. ``photograph``: see ``prompts.photo_share``."""

    text: str
    weight: float = Field(1.0, gt=0)
    kinds: tuple[Kind, ...] = ()
    not_kinds: tuple[Kind, ...] = ()
    places: tuple[Setting, ...] = ()
    photograph: bool = False

    def suits(self, entry: BankEntry, place: Setting | None) -> bool:
        """Whether a picture of that class, taken there, may have it."""
        kind_fits = (not self.kinds or entry.kind in self.kinds) and entry.kind not in self.not_kinds
        return kind_fits and (not self.places or place in self.places)


class Vocabulary(_Document):
    """Axes in the order in which they are drawn, and how a prompt is put together.

    ``form`` names axes in braces, and of the class ``subject`` (the noun phrase), ``sort``, ``name``, ``sense`` and
    ``scene``. Of its parts between commas one that would say nothing is left out. ``style`` is the axis that a plan
    calls so.
    """

    form: str
    style: str
    axes: dict[str, tuple[Value, ...]]

    @model_validator(mode="after")
    def _known(self) -> Vocabulary:
        if self.style not in self.axes:
            raise ValueError(f"style names {self.style!r}, which is none of the axes")
        if unknown := {value.text for value in self.axes.get("count", ())} - COUNTS.keys():
            raise ValueError(f"count: {min(unknown)!r} is none of {', '.join(COUNTS)}")
        return self


@lru_cache(maxsize=len(get_args(VocabularyName)))
def load_vocabulary(name: VocabularyName) -> Vocabulary:
    """A bundled vocabulary.

    Raises:
        ConfigError: it is not valid.
    """
    try:
        return Vocabulary.model_validate(load_yaml(_bytes(name), f"vocabulary {name}"))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"vocabulary {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def vocabulary_identity(name: VocabularyName) -> str:
    """SHA-256 of a vocabulary."""
    return hashlib.sha256(_bytes(name)).hexdigest()


def _bytes(name: VocabularyName) -> bytes:
    return (resources.files("prism_fast.labels") / "vocabularies" / f"{name}.yaml").read_bytes()
