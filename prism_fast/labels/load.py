"""Find a label space by name or read one from a file."""

from __future__ import annotations

from importlib import resources
from typing import Any

from pydantic import ValidationError

from prism_fast.errors import ConfigError, InputError
from prism_fast.labels.space import BUNDLED, LabelSpace, labels_path
from prism_fast.storage.yaml_document import cut, load_yaml


def load_label_space(name_or_path: str) -> LabelSpace:
    """A bundled label space by name, or one of your own from a YAML file.

    A file lists ``classes``, or the WordNet ids of a part of ImageNet-1k as ``synsets``.

    Raises:
        InputError: neither a bundled name nor an existing file.
        ConfigError: the file is not a label space.
    """
    if name_or_path == "imagenet1k":
        from prism_fast.labels.imagenet import imagenet1k  # imports timm

        return imagenet1k()
    bundled = name_or_path in BUNDLED
    path = resources.files("prism_fast.labels") / f"{name_or_path}.yaml" if bundled else labels_path(name_or_path)
    if not path.is_file():
        raise InputError(f"label space {name_or_path!r} is neither one of {', '.join(BUNDLED)} nor a YAML file")
    try:
        space = LabelSpace.model_validate(_with_classes(load_yaml(path.read_bytes(), f"label space {name_or_path!r}")))
    except OSError as error:
        raise ConfigError(f"label space {name_or_path!r} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"label space {name_or_path!r} is not valid: {where}{': ' if where else ''}{first['msg']}"
        ) from error
    except ValueError as error:  # a WordNet id that nobody knows
        raise ConfigError(f"label space {name_or_path!r} is not valid: {error}") from error
    if (half := _half_character(space)) is not None:
        raise ConfigError(
            f"label space {name_or_path!r} is not valid: {cut(ascii(half))} holds half a character; write it "
            "as itself, not as \\u and four digits"
        )
    return space


def _half_character(space: LabelSpace) -> str | None:
    """The first text with a lone surrogate, which no file can hold: YAML's escapes make them of a JSON pair."""
    texts = [space.name]
    for cls in space.classes:
        texts += [cls.name, cls.sense, cls.definition, *cls.concepts, *cls.subgroups, *cls.exclude]
    return next((text for text in texts if any("\ud800" <= letter <= "\udfff" for letter in text)), None)


def _with_classes(document: Any) -> Any:
    if not isinstance(document, dict) or "synsets" not in document:
        return document
    from prism_fast.labels.subset import expanded  # imports timm

    return expanded(document)
