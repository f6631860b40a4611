"""ImageNet-1k's label space from the synset data that timm carries.

Its files are read as they lie, and timm is not imported: it loads torch, half a gigabyte for a few names.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from prism_fast.errors import DataError
from prism_fast.labels.space import ClassLabel, LabelSpace


@lru_cache(maxsize=1)
def imagenet1k_synsets() -> list[str]:
    """WordNet ids of the 1,000 classes, by label."""
    return _read("imagenet_synsets.txt").split()


@lru_cache(maxsize=1)
def imagenet1k() -> LabelSpace:
    """All 1,000 classes in the usual order, each with a sense that tells homonyms apart.

    The sense is the first lemma and the first clause of the WordNet definition: "crane, large long-necked wading bird
    of marshes and plains in many parts of the world" against "crane, lifts and moves heavy objects". Two classes that
    still share a name get their synset id appended to the name.
    """
    lemmas_of, definitions = _table("imagenet_synset_to_lemma.txt"), _table("imagenet_synset_to_definition.txt")
    lemmas = [lemmas_of[synset].split(",")[0].strip() for synset in imagenet1k_synsets()]
    repeated = {name for name in lemmas if lemmas.count(name) > 1}
    classes = []
    for synset, lemma in zip(imagenet1k_synsets(), lemmas, strict=True):
        definition = definitions[synset]
        clause = definition.split(";")[0].strip()
        name = f"{lemma} ({synset})" if lemma in repeated else lemma
        classes.append(ClassLabel(name=name, sense=f"{lemma}, {clause}" if clause else lemma, definition=definition))
    return LabelSpace(name="imagenet1k", classes=tuple(classes))


def _table(name: str) -> dict[str, str]:
    return dict(csv.reader(_read(name).splitlines(), delimiter="\t"))


def _read(name: str) -> str:
    spec = find_spec("timm")
    folders = spec.submodule_search_locations if spec else None
    file = Path(next(iter(folders or ["timm"]))) / "data" / "_info" / name
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file}, which names ImageNet's classes, cannot be read; install timm again") from error
