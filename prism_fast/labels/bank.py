"""A prompt bank: for each class how people would name it, its sorts, where it is found, and what it must not become.

A bank is data, written by hand or by :mod:`prism_fast.prompts`' commands, and read lazily. The bundled ones lie in
``banks/``: ``emoji.yaml``, and ``imagenet1k/``, a file for each 25 classes in the order of the labels. Parts of
ImageNet-1k take their classes from there.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prism_fast.errors import ConfigError, InputError
from prism_fast.labels.space import LabelSpace, is_file, labels_path
from prism_fast.storage.files import read
from prism_fast.storage.yaml_document import load_yaml

Kind = Literal[
    "dog", "cat", "mammal", "bird", "fish", "reptile", "amphibian", "invertebrate", "plant", "fungus", "produce",
    "dish", "vehicle", "watercraft", "aircraft", "structure", "place", "furniture", "appliance", "electronics",
    "instrument", "tool", "container", "garment", "accessory", "sport", "toy", "printed", "person", "object", "symbol",
]  # fmt: skip
Setting = Literal["outdoors", "indoors", "underwater", "night"]
KINDS: tuple[str, ...] = get_args(Kind)
#: Name of the bank that comes with a label space.
OWN = "bundled"


class BankEntry(BaseModel):
    """One class.

    ``name`` in the singular and its ``plural``, unless it is ``uncountable``; ``sense``: a noun phrase without article
    that only this class satisfies, ``alternatives``: others of that form; ``variants``: visibly different sorts, which
    end as the name does; ``scenes``: what may follow the noun, one or several of it; ``confusions``: what it must not
    become.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    plural: str | None = None
    uncountable: bool = False
    kind: Kind
    sense: str = Field(min_length=1)
    alternatives: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    scenes: dict[Setting, tuple[str, ...]] = {}
    confusions: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _counted(self) -> BankEntry:
        if (self.plural is None) != self.uncountable:
            raise ValueError(f"{self.name!r} needs either a plural or uncountable: true")
        return self

    @property
    def places(self) -> tuple[tuple[Setting | None, str], ...]:
        """Every scene and where it is; one that says nothing where there are none."""
        found: list[tuple[Setting | None, str]] = [(s, scene) for s, scenes in self.scenes.items() for scene in scenes]
        return tuple(found) or ((None, ""),)


def load_bank(bank: str, space: LabelSpace) -> tuple[BankEntry, ...]:
    """The entry of each class of a label space, by label.

    Args:
        bank: ``bundled``, or a YAML file of entries by class name; of ImageNet's classes by WordNet id.
        space: whose classes.

    Raises:
        InputError: no such bank, or one that lacks a class. ConfigError: it is no bank.
    """
    if bank != OWN:
        entries, keys = _parse(_own_file(bank), f"prompt bank {bank!r}"), class_keys(space)
    elif _of_imagenet(space):
        entries = bundled_bank("imagenet1k")
        ids = tuple(entries)
        keys = [ids[place] for place in space.indices] or list(ids)
    elif space.name == "emoji":
        entries, keys = bundled_bank("emoji"), class_keys(space)
    else:
        raise InputError(f"no prompt bank comes with label space {space.name!r}; give prompts.bank a YAML file")
    if missing := [key for key in keys if key not in entries]:
        raise InputError(f"prompt bank {bank!r} lacks {len(missing)} of the classes, the first is {missing[0]!r}")
    return tuple(entries[key] for key in keys)


@lru_cache(maxsize=2)
def bundled_bank(name: str) -> dict[str, BankEntry]:
    """All entries of a bundled bank: ``emoji`` by class name, ``imagenet1k`` by WordNet id in the order of labels."""
    found: dict[str, BankEntry] = {}
    for file in _bundled_files(name):
        found |= _parse(file.read_bytes(), file.name)
    return found


def bank_identity(bank: str, labels: str) -> str:
    """SHA-256 of what a bank holds, wherever its file lies; ``labels`` says which of the bundled ones is meant.

    Raises:
        InputError: there is no such file.
    """
    if bank != OWN:
        return hashlib.sha256(_own_file(bank)).hexdigest()
    files = _bundled_files("emoji" if labels == "emoji" else "imagenet1k")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _bundled_files(name: str) -> list[Traversable]:
    folder = resources.files("prism_fast.labels") / "banks"
    if name == "imagenet1k":
        return sorted((folder / name).iterdir(), key=lambda file: file.name)
    return [folder / f"{name}.yaml"]


def _of_imagenet(space: LabelSpace) -> bool:
    return "imagenet1k" in (space.name, space.subset_of)


def _own_file(bank: str) -> bytes:
    path = labels_path(bank)
    if not is_file(path):
        raise InputError(f"prompt bank {bank!r} is neither {OWN!r} nor a YAML file")
    try:
        return read(path)
    except OSError as error:
        raise InputError(f"prompt bank {bank!r} cannot be read: {error.strerror or error}") from error


def class_keys(space: LabelSpace) -> list[str]:
    """What a bank calls each class of a label space: its name; a class of ImageNet's by its WordNet id."""
    if not _of_imagenet(space):
        return [cls.name for cls in space.classes]
    from prism_fast.labels.imagenet import imagenet1k_synsets  # imports timm

    ids = imagenet1k_synsets()
    return [ids[place] for place in space.indices] or ids


def _parse(data: bytes, what: str) -> dict[str, BankEntry]:
    document = load_yaml(data, f"{what} is not YAML")
    if not isinstance(document, dict):
        raise ConfigError(f"{what} is no prompt bank; expected a mapping of classes to their entries")
    found = {}
    for key, entry in document.items():
        try:
            found[str(key)] = BankEntry.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{what}: {key}{': ' if where else ''}{where}: {first['msg']}") from error
    return found
