"""Which class a folder of pictures is about: by name, as our export writes it, by WordNet id or by number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

from prism_fast.errors import DataError, InputError
from prism_fast.labels.imagenet import imagenet1k_synsets
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import BUNDLED, LabelSpace
from prism_fast.storage.yaml_document import cut

_NUMBERED = re.compile(r"(\d+)(?:[_-].*)?", re.DOTALL)
_EXPORTED = re.compile(r"(\d+)_(.*)", re.DOTALL)
_SYNSET = re.compile(r"n\d{8}")
_SHOWN = 5  # names in a message
_LONGEST = 255  # bytes in the name of a file, on every common file system

Lookup = Callable[[str], int | None]


def folder_names(names: Sequence[str]) -> list[str]:
    """``03_red-panda``: sorted by name they are sorted by label, as ImageFolder numbers its classes.

    Raises:
        InputError: a class has a name that is too long for a folder.
    """
    width = len(str(len(names) - 1))
    folders = [f"{i:0{width}d}_{_exported(name)}" for i, name in enumerate(names)]
    for label, folder in enumerate(folders):
        if len(folder) > _LONGEST:  # each letter is ASCII, one byte
            raise InputError(
                f"class {label} ({cut(names[label])}) has a name of {len(names[label])} letters, too long for a folder "
                f"(at most {_LONGEST} bytes with its number); use the format parquet, or a shorter name"
            )
    return folders


def within(folders: Sequence[str], space: LabelSpace) -> dict[int, str]:
    """Places of the folders that a part of ImageNet is tested on, and their names; without those of its other classes.

    Numbers are ImageNet's if all 1,000 are there, as in ImageNet-V2, else the part's. A folder that ImageNet lacks too
    is kept: it will be refused by name. Of a label space that is no part, all are kept.
    """
    kept = dict(enumerate(folders))
    if space.subset_of is None:
        return kept
    names = _names(load_label_space(space.subset_of))
    if all(folder.isdecimal() for folder in folders):
        if sorted(map(int, folders)) != list(range(len(names))):
            return kept
        kept = {place: names[int(folder)] for place, folder in kept.items()}
    lookup, part = _among(names), set(space.indices)
    labels = {place: lookup(folder) for place, folder in kept.items() if not folder.isdecimal()}
    return {place: name for place, name in kept.items() if labels.get(place) is None or labels[place] in part}


def match_folders(
    folders: Sequence[str],
    classes: int,
    labels: str | None = None,
    own: Sequence[str] | None = None,
    what: str = "class folders",
) -> tuple[list[int], str]:
    """Each folder's label, and how it was found.

    With ``labels`` it is found in that label space. Without, among the classifier's own names or in a bundled label
    space of as many classes if these know every folder, else by the numbers that the names begin with.

    Args:
        folders: names of the class folders.
        classes: how many the network tells apart.
        labels: a bundled label space or a YAML file.
        own: what the classifier's configuration calls its classes.
        what: how a message calls them.

    Raises:
        InputError: no such label space, or one of another size. DataError: folders that match no class, or the same.
    """
    if labels is not None:
        space = load_label_space(labels)
        if len(space.classes) != classes:
            raise InputError(
                f"label space {labels!r} has {len(space.classes)} classes, the classifier {classes}; "
                "give the one that it was trained on with --labels"
            )
        found, lost = _found(folders, _among(_names(space)))
        if lost:
            raise DataError(
                f"{len(lost)} of {len(folders)} {what} match no class of label space {labels!r} "
                f"({_some(lost)}); rename them, its classes are {_some(_names(space))}"
            )
        return _distinct(folders, found), f"by the names of {space.name}"
    numbers = all(folder.isdecimal() for folder in folders)
    for whose, names in () if numbers else _candidates(classes, own):
        found, lost = _found(folders, _among(names))
        if not lost:
            return _distinct(folders, found), f"by the names of {whose}"
    found, lost = _found(folders, lambda folder: _number(folder, classes))
    if lost:
        raise DataError(
            f"{len(lost)} of {len(folders)} {what} are neither a known label space's nor numbers below "
            f"{classes} ({_some(lost)}); say whose names they are with --labels NAME_OR_FILE"
        )
    return _distinct(folders, found), "by number"


def _found(folders: Sequence[str], lookup: Lookup) -> tuple[list[int], list[str]]:
    """The labels of those that match, and the folders that do not."""
    labels = [lookup(folder) for folder in folders]
    lost = [folder for folder, label in zip(folders, labels, strict=True) if label is None]
    return [label for label in labels if label is not None], lost


def _candidates(classes: int, own: Sequence[str] | None) -> Iterator[tuple[str, Sequence[str]]]:
    """Names that may be meant, and whose they are."""
    if own is not None and len(own) == classes:
        yield "the classifier", own
    for space in map(load_label_space, BUNDLED):
        if len(space.classes) == classes:
            yield space.name, _names(space)


def _among(names: Sequence[str]) -> Lookup:
    exact, folded = _unambiguous(names, str), _unambiguous(names, _folded)
    first = _unambiguous(names, lambda name: _folded(name.split(",")[0]))  # "tench, Tinca tinca"

    def by_name(text: str) -> int | None:
        key = _folded(text)
        return exact.get(text, folded.get(key, first.get(key)))

    def lookup(folder: str) -> int | None:
        if (label := by_name(folder)) is not None:
            return label
        if _SYNSET.fullmatch(folder):  # its name there tells homonyms apart
            return by_name(_names_of_synsets().get(folder, folder))
        if match := _EXPORTED.fullmatch(folder):
            label = _number(match[1], len(names))
            return label if label is not None and _folded(_exported(names[label])) == _folded(match[2]) else None
        return _number(folder, len(names)) if folder.isdecimal() else None

    return lookup


def _names(space: LabelSpace) -> list[str]:
    return [cls.name for cls in space.classes]


def _exported(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "-", name).strip("-")


def _folded(name: str) -> str:
    """Without case, blanks, underscores and dashes."""
    return re.sub(r"[\s_-]+", "", name.casefold())


def _unambiguous(names: Sequence[str], key: Callable[[str], str]) -> Mapping[str, int]:
    """Labels by a key that only one name has."""
    keys = [key(name) for name in names]
    times = Counter(keys)
    return {k: label for label, k in enumerate(keys) if k and times[k] == 1}


@lru_cache(maxsize=1)
def _names_of_synsets() -> dict[str, str]:
    """WordNet id to the name of its class in the bundled label space ``imagenet1k``."""
    return dict(zip(imagenet1k_synsets(), _names(load_label_space("imagenet1k")), strict=True))


def _number(folder: str, classes: int) -> int | None:
    match = _NUMBERED.fullmatch(folder)
    return int(match[1]) if match and match[1].isascii() and int(match[1]) < classes else None


def _distinct(folders: Sequence[str], found: Sequence[int]) -> list[int]:
    owners: dict[int, str] = {}
    for folder, label in zip(folders, found, strict=True):
        if label in owners:
            raise DataError(f"the folders {owners[label]!r} and {folder!r} are both class {label}; join or rename them")
        owners[label] = folder
    return list(owners)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
