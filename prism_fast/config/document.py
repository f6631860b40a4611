"""Configurations as documents: bundled or YAML files, and values assigned by dotted key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from prism_fast.config.recipes import recipe, recipes
from prism_fast.config.schema import RunConfig
from prism_fast.errors import ConfigError, InputError
from prism_fast.storage.yaml_document import cut, load_yaml


def bundled_configs() -> dict[str, str]:
    """Name -> first comment line of every configuration that ships with the package."""
    found = {}
    for entry in resources.files("prism_fast.configs").iterdir():
        if entry.name.endswith(".yaml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0]
            found[entry.name.removesuffix(".yaml")] = first.lstrip("# ")
    return dict(sorted(found.items()))


def load_config(name_or_path: str | Path, assignments: Iterable[str] = ()) -> RunConfig:
    """Read a bundled or own configuration, then apply ``section.key=value`` assignments, values in YAML.

    Raises:
        InputError: no such configuration.
        ConfigError: not YAML, an unknown key or a value out of range; the message names the key.
    """
    data = load_yaml(_read(str(name_or_path)), f"{name_or_path} is not valid YAML")
    if not isinstance(data, dict):
        raise ConfigError(f"{name_or_path} is not a mapping of sections")
    for assignment in assignments:
        _put(data, *_parsed(assignment))
    return _validated(data, str(name_or_path))


def assign(config: RunConfig, values: Mapping[str, object]) -> RunConfig:
    """The same run with other values: ``{"guidance.scale": 0.4}``; checked like a document that was read.

    Raises:
        ConfigError: an unknown key or a value out of range; the message names the key.
    """
    data = config.model_dump(mode="json")
    for key, value in values.items():
        _put(data, key, value)
    return _validated(data)


def parse_assignments(assignments: Iterable[str]) -> dict[str, object]:
    """``section.key=value`` texts, values in YAML, as :func:`assign` takes them.

    Raises:
        ConfigError: a text is not of that form.
    """
    return dict(map(_parsed, assignments))


def _read(name_or_path: str) -> bytes:
    if name_or_path in bundled_configs():
        return (resources.files("prism_fast.configs") / f"{name_or_path}.yaml").read_bytes()
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read configuration {_short(name_or_path)}: {error.strerror or error}") from error
    names = ", ".join(bundled_configs())
    raise InputError(f"configuration {_short(name_or_path)} is neither a file nor one of: {names}")


def _parsed(assignment: str) -> tuple[str, object]:
    key, sep, text = assignment.partition("=")
    if not sep:
        raise ConfigError(f"--set {_short(assignment)} is not of the form key=value, for example guidance.scale=0.4")
    value = load_yaml(text, f"--set {cut(key)}: {_short(text)} is not a YAML value")
    comment = _comment_of(text)
    if comment is _Comment.AFTER_PLAIN_TEXT:  # of a shell's words nothing is meant to be left out
        return key.strip(), text.strip()
    if comment is _Comment.AFTER_OTHERS:
        raise ConfigError(f"--set {cut(key)}: {_short(text)} has a comment behind its value; leave it out")
    return key.strip(), value


class _Comment(Enum):
    """What YAML would leave out of a value because of a ``#``."""

    NONE = auto()
    AFTER_PLAIN_TEXT = auto()
    AFTER_OTHERS = auto()


def _comment_of(text: str) -> _Comment:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    rest = text if node is None else text[node.end_mark.index :]
    if not rest.lstrip().startswith("#"):
        return _Comment.NONE
    plain = node is None or (isinstance(node, yaml.ScalarNode) and node.style is None)
    return _Comment.AFTER_PLAIN_TEXT if plain else _Comment.AFTER_OTHERS


def _short(text: str) -> str:
    return repr(cut(text))


def _put(data: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    node = data
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {cut(key)}: {_short(parent)} is not a section of the configuration")
    node[last] = value
    if key == "distill.recipe" and value in recipes():  # whoever asks for one by name means all of it
        node.update(recipe(str(value)))


def _validated(data: dict[str, Any], name: str = "") -> RunConfig:
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join(filter(None, (name, cut(".".join(str(part) for part in first["loc"])))))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{where}: {first['msg']}{more}") from error
