"""Whether a classifier's classes stand in the order of a label space, as far as its checkpoint names them."""

from __future__ import annotations

import re
from functools import lru_cache

from prism_fast.errors import InputError
from prism_fast.labels.space import ClassLabel, LabelSpace
from prism_fast.models.classifier_config import ClassifierConfig

_SYNSET = re.compile(r"n\d{8}")


def require_label_order(config: ClassifierConfig, space: LabelSpace) -> None:
    """Refuse a classifier whose class ``i`` is called like another class of the label space than its ``i``-th.

    Case, underscores and hyphens do not count; of several names between commas ("tench, Tinca tinca") one must agree,
    and a WordNet id (``n01440764``) stands for its names. A name that the label space has nowhere proves nothing.

    Raises:
        InputError: the first that differs.
    """
    if config.label_names is None:
        return
    classes = [_of_class(cls) for cls in space.classes]
    for label, name in enumerate(config.label_names[: len(classes)]):
        names = _spellings(name)
        if names & classes[label]:
            continue
        other = next((i for i, known in enumerate(classes) if names & known), None)
        if other is not None:
            raise InputError(
                f"class {label} of the classifier is {name!r}, of label space {space.name!r} it is "
                f"{space.classes[label].name!r}, and {name!r} is class {other}; bring the label space into the "
                "classifier's order"
            )


def _of_class(cls: ClassLabel) -> set[str]:
    synset = _SYNSET.search(cls.name)
    bare = re.sub(r"\s*\(n\d{8}\)$", "", cls.name)
    return {_plain(cls.name), _plain(bare)} | ({synset[0]} if synset else set())


def _spellings(name: str) -> set[str]:
    found = {_plain(name), *(_plain(part) for part in name.split(","))} - {""}
    if _SYNSET.fullmatch(name.strip()):
        found |= {_plain(lemma) for lemma in _lemmas().get(name.strip(), "").split(",")} - {""}
    return found


@lru_cache(maxsize=1)
def _lemmas() -> dict[str, str]:
    """Names by WordNet id, of all of ImageNet."""
    from timm.data import ImageNetInfo

    return dict(ImageNetInfo("imagenet-22k").label_descriptions(detailed=False, as_dict=True))


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-]", " ", name).casefold().split())
