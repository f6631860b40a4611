"""YAML as people write it: one kind of error for whatever is none, and no key twice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from prism_fast.errors import ConfigError

#: What PyYAML answers a text with that is none of its own, or that is nested too deeply.
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
_SHOWN = 80


class _Loader(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys, ``010`` for 8 and ``1:30`` for 90, and says nothing.

    Here whole numbers are decimal, or hexadecimal after ``0x``, or binary after ``0b``.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping, if its keys differ."""
        written = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        made: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        seen: set[Hashable] = set()
        for key in written:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{cut(repr(name))} is there twice", key.start_mark)
            seen.add(name)
        return made


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    digits = str(loader.construct_scalar(node)).replace("_", "")
    base = {"0x": 16, "0b": 2}.get(digits.lstrip("+-")[:2].lower(), 10)
    return int(digits, base)


_INT = "tag:yaml.org,2002:int"
_Loader.add_constructor(_INT, _whole_number)


def load_yaml(text: str | bytes, what: str) -> Any:
    """The value of a document; ``what`` begins the message when it is none.

    Raises:
        ConfigError: it is not YAML, or has a key twice; the message is one short line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except _NOT_YAML as error:
        raise ConfigError(f"{what}: {_reason(error)}") from error


def cut(text: str) -> str:
    """A text that is short enough for a message."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _reason(error: BaseException) -> str:
    """Where and what; of what is none of PyYAML's own, which says too little by itself, its kind too."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {cut(' '.join(error.problem.split()))}"
    said = (str(error).splitlines() or [""])[0]
    return cut(said if isinstance(error, yaml.YAMLError | ValueError) and said else f"{type(error).__name__} {said}")
