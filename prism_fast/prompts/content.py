"""Content diversification: what the pictures of one class show."""

from __future__ import annotations

from itertools import pairwise

from prism_fast.config import PromptsConfig
from prism_fast.labels.space import ClassLabel
from prism_fast.prompts.disambiguate import class_fields


def blends(concepts: tuple[str, ...]) -> tuple[str, ...]:
    """Each concept joined with the next one: what a generator that knows both by heart has never drawn."""
    return tuple(f"{a} and {b}" for a, b in pairwise((*concepts, concepts[0]))) if len(concepts) > 1 else ()


def contents_of(cls: ClassLabel, config: PromptsConfig) -> tuple[str, ...]:
    """The class's own concepts when it names any and the configuration wants them, else the configured contents."""
    if config.use_concepts and cls.concepts:
        return cls.concepts + (blends(cls.concepts) if config.blend else ())
    return tuple(content.format(**class_fields(cls)) for content in config.contents)
