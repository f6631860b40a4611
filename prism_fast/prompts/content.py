"""Content diversification: what the pictures of one class show."""

from __future__ import annotations

from prism_fast.config import PromptsConfig
from prism_fast.labels.space import ClassLabel
from prism_fast.prompts.disambiguate import class_fields


def contents_of(cls: ClassLabel, config: PromptsConfig) -> tuple[str, ...]:
    """The class's own concepts when it names any and the configuration wants them, else the configured contents."""
    if config.use_concepts and cls.concepts:
        return cls.concepts
    return tuple(content.format(**class_fields(cls)) for content in config.contents)
