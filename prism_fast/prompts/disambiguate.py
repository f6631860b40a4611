"""Semantic disambiguation: write a class so that its other meanings are ruled out."""

from __future__ import annotations

from prism_fast.labels.space import ClassLabel


def class_fields(cls: ClassLabel) -> dict[str, str]:
    """What a template may say of a class: ``name`` as given, ``sense`` with its homonyms ruled out."""
    return {"name": cls.name, "sense": cls.phrase, "definition": cls.definition}
