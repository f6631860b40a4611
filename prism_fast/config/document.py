"""Configurations as documents: bundled or YAML files, and values assigned by dotted key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from prism_fast.config.schema import RunConfig
from prism_fast.errors import ConfigError, InputError


def bundled_configs() -> dict[str, str]:
    """Name -> first comment line of every configuration that ships with the package."""
    found = {}
    for entry in resources.files("prism_fast.configs").iterdir():
        if entry.name.endswith(".yaml"):
            first = entry.read_text().splitlines()[0]
            found[entry.name.removesuffix(".yaml")] = first.lstrip("# ")
    return dict(sorted(found.items()))


def load_config(name_or_path: str | Path, assignments: Iterable[str] = ()) -> RunConfig:
    """Read a bundled or own configuration, then apply ``section.key=value`` assignments, values in YAML.

    Raises:
        InputError: no such configuration.
        ConfigError: not YAML, an unknown key or a value out of range; the message names the key.
    """
    try:
        data = yaml.safe_load(_read(str(name_or_path)))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name_or_path} is not valid YAML: {str(error).splitlines()[0]}") from error
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


def _read(name_or_path: str) -> str:
    if name_or_path in bundled_configs():
        return (resources.files("prism_fast.configs") / f"{name_or_path}.yaml").read_text()
    path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(bundled_configs())
        raise InputError(f"configuration {name_or_path!r} is neither a file nor one of: {names}")
    return path.read_text()


def _parsed(assignment: str) -> tuple[str, object]:
    key, sep, text = assignment.partition("=")
    if not sep:
        raise ConfigError(f"--set {assignment!r} is not of the form key=value, for example guidance.scale=0.4")
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: {text!r} is not a YAML value: {str(error).splitlines()[0]}") from error


def _put(data: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    node = data
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {parent!r} is not a section of the configuration")
    node[last] = value


def _validated(data: dict[str, Any], name: str = "") -> RunConfig:
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join(filter(None, (name, ".".join(str(part) for part in first["loc"]))))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{where}: {first['msg']}{more}") from error
