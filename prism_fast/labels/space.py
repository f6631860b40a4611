"""Label spaces: class names with the sense that tells homonyms apart."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prism_fast.errors import ConfigError, InputError

BUNDLED = ("emoji", "imagenet1k")


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
    """An ordered set of classes; the position is the integer label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    classes: tuple[ClassLabel, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> LabelSpace:
        name, count = Counter(cls.name for cls in self.classes).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{count} classes are called {name!r}; names must differ")
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


def load_label_space(name_or_path: str) -> LabelSpace:
    """A bundled label space by name, or one of your own from a YAML file.

    Raises:
        InputError: neither a bundled name nor an existing file.
        ConfigError: the file is not a label space.
    """
    if name_or_path == "imagenet1k":
        from prism_fast.labels.imagenet import imagenet1k

        return imagenet1k()
    bundled = name_or_path in BUNDLED
    path = resources.files("prism_fast.labels") / f"{name_or_path}.yaml" if bundled else Path(name_or_path)
    if not path.is_file():
        raise InputError(f"label space {name_or_path!r} is neither one of {', '.join(BUNDLED)} nor a YAML file")
    try:
        return LabelSpace.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"label space {name_or_path!r} is not valid: {where}{': ' if where else ''}{first['msg']}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"label space {name_or_path!r} is not YAML: {str(error).splitlines()[0]}") from error
