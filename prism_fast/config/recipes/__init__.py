"""Named distillation settings: what a recipe says holds where a document says nothing."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from prism_fast.storage.yaml_document import load_yaml


def recipes() -> tuple[str, ...]:
    """The names of all recipes."""
    found = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))


@cache
def recipe(name: str) -> dict[str, Any]:
    """What a recipe sets, as a document's section ``distill``.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in recipes():
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(recipes())}")
    text = (resources.files(__name__) / f"{name}.yaml").read_bytes()
    held: dict[str, Any] = load_yaml(text, f"recipe {name} is not valid YAML")
    return held


def with_recipe(section: dict[str, Any]) -> dict[str, Any]:
    """A section ``distill`` with what its recipe says where it says nothing itself."""
    return section if section.get("recipe") is None else _under(recipe(str(section["recipe"])), section)


def _under(held: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    both = {key: _under(held[key], own[key]) for key in held.keys() & own.keys() if _maps(held[key], own[key])}
    return {**held, **own, **both}


def _maps(*values: object) -> bool:
    return all(isinstance(value, dict) for value in values)
