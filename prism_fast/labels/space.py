"""Label spaces: class names with the sense that tells homonyms apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prism_fast.errors import InputError

BUNDLED = ("emoji", "imagenet100", "imagenet1k", "imagenette")


class ClassLabel(BaseModel):
    """One class: its name, the disambiguated sense used in prompts, and a definition."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sense: str = ""
    definition: str = ""
    concepts: tuple[str, ...] = ()
    subgroups: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def phrase(self) -> str:
        """How the class is written in a prompt: the sense when there is one, else the name."""
        return self.sense or self.name


class LabelSpace(BaseModel):
    """An ordered set of classes; the position is the integer label.

    A part of ImageNet-1k says so: class ``i`` is then ImageNet's class ``indices[i]``, and a classifier of all 1,000
    classes can be asked about these alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    classes: tuple[ClassLabel, ...] = Field(min_length=1)
    subset_of: Literal["imagenet1k"] | None = None
    indices: tuple[Annotated[int, Field(ge=0, lt=1000)], ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> LabelSpace:
        blank = next((label for label, cls in enumerate(self.classes) if not cls.name.strip()), None)
        if blank is not None:
            raise ValueError(f"class {blank} has the name {self.classes[blank].name!r}; give it one that can be read")
        name, count = Counter(cls.name.strip() for cls in self.classes).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{count} classes are called {name!r}; names must differ in more than blanks around them")
        return self

    @model_validator(mode="after")
    def _indices_of_the_whole(self) -> LabelSpace:
        expected = len(self.classes) if self.subset_of else 0
        if len(self.indices) != expected:
            raise ValueError(f"{len(self.indices)} places in a larger label space for {expected} classes")
        if len(set(self.indices)) != expected:
            raise ValueError(f"the same class of {self.subset_of} stands there twice")
        return self

    def index(self, name: str) -> int:
        """Label of the class called ``name``.

        Raises:
            InputError: no class has that name.
        """
        for label, cls in enumerate(self.classes):
            if cls.name == name:
                return label
        some = ", ".join(c.name for c in self.classes[:8])
        raise InputError(
            f"class {name!r} is not in label space {self.name!r} ({len(self.classes)} classes: {some}, ...)"
        )


def labels_path(labels: str) -> Path:
    """The file that a label space of your own is in; ``~`` is the home directory unless a file is really called so."""
    path = Path(labels)
    if is_file(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # nobody's home
        return path


def is_file(path: Path) -> bool:
    """Whether a file of that name is there; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False
