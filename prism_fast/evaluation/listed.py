"""Pictures whose classes stand in a file: the validation set side by side, and ImageNet's reassessed labels."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from prism_fast.errors import DataError
from prism_fast.evaluation.folder import PictureFolder

_SYNSET = re.compile(r"n\d{8}")
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")


@dataclass(frozen=True)
class Listing:
    """Pictures with a class, and how many have none and were left out."""

    pictures: PictureFolder
    left_out: int


@dataclass(frozen=True)
class Reassessed:
    """Pictures, their places as in ``labels``, and how many the raters found no class for.

    ``labels[i]``: every class that is right for picture ``i``.
    """

    pictures: PictureFolder
    labels: tuple[frozenset[int], ...]
    left_out: int


def open_listed(path: Path, file: Path) -> Listing:
    """Pictures below ``path`` that a CSV, TSV or blank-separated file of names and classes tells of.

    A class is a name, a WordNet id or a number, as that of a folder; of Kaggle's ``LOC_val_solution.csv`` the id before
    the boxes. Names are compared without folder and ending; lines of other pictures (and a header) are passed over.

    Raises:
        DataError: the file cannot be read, has classes without names, or names none of the pictures.
    """
    found, classes = _below(path), _classes(file)
    texts = sorted({classes[name] for name in found if name in classes})
    if not texts:
        raise DataError(
            f"{file} names none of the {len(found)} pictures in {path}; its first is {next(iter(classes))!r}"
        )
    places = {text: place for place, text in enumerate(texts)}
    samples = tuple((str(picture), places[classes[name]]) for name, picture in found.items() if name in classes)
    return Listing(PictureFolder(path, tuple(texts), samples), len(found) - len(samples))


def open_reassessed(path: Path, file: Path, classes: int) -> Reassessed:
    """ImageNet's validation pictures below ``path`` with the labels of ``real.json``, those without labels left out.

    The file is a list whose first item is the labels of ``ILSVRC2012_val_00000001``, and so on.

    Reference:
        Beyer et al. 2020, "Are we done with ImageNet?"; github.com/google-research/reassessed-imagenet.

    Raises:
        DataError: the file is no such list, or a picture is not called so.
    """
    labels = _real_labels(file, classes)
    pictures: list[tuple[Path, frozenset[int]]] = []
    for name, picture in _below(path).items():
        match = _VALIDATION.fullmatch(name)
        if match is None or not 1 <= int(match[1]) <= len(labels):
            raise DataError(
                f"{picture} is not one of the {len(labels)} pictures of {file}; expected ILSVRC2012_val_00000001 to "
                f"ILSVRC2012_val_{len(labels):08d}"
            )
        pictures.append((picture, labels[int(match[1]) - 1]))
    kept = [(picture, right) for picture, right in pictures if right]
    samples = tuple((str(picture), place) for place, (picture, _) in enumerate(kept))
    if not samples:
        raise DataError(f"{file} has no label for any of the {len(pictures)} pictures in {path}")
    left_out = len(pictures) - len(kept)
    return Reassessed(PictureFolder(path, (), samples), tuple(right for _, right in kept), left_out)


def _below(path: Path) -> dict[str, Path]:
    """Pictures by their name without folder and ending, in order of name."""
    files = (p for p in path.rglob("*") if p.suffix.lower() in IMG_EXTENSIONS and not p.name.startswith("."))
    found: dict[str, Path] = {}
    for file in sorted(files, key=lambda p: (p.stem, p)):
        if file.stem in found:
            raise DataError(f"{found[file.stem]} and {file} are called the same; which one is meant is not known")
        found[file.stem] = file
    if not found:
        raise DataError(f"{path} is no directory with pictures in it")
    return found


def _classes(file: Path) -> dict[str, str]:
    """The class's text by the picture's name."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    found: dict[str, str] = {}
    for number, row in _rows(lines):
        if len(row) < 2 or not row[1].strip():
            raise DataError(_why(file, lines, number))
        name, text = Path(row[0].strip()).name, row[1].strip()
        name = Path(name).stem if Path(name).suffix.lower() in IMG_EXTENSIONS else name
        first = text.split()[0]
        text = first if _SYNSET.fullmatch(first) else text
        if found.setdefault(name, text) != text:
            raise DataError(f"{file}, line {number}: {name} is {text!r} there and {found[name]!r} before")
    if not found:
        raise DataError(f"{file} is empty; expected lines of a picture's name and its class")
    return found


def _rows(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Lines by number, from 1, split at tabs, at commas or at the first blank, as the first line has them."""
    first = next((line for line in lines if line.strip()), "")
    mark = next((mark for mark in "\t," if mark in first), None)
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line.split(maxsplit=1) if mark is None else next(csv.reader([line], delimiter=mark))


def _why(file: Path, lines: list[str], number: int) -> str:
    if all(line.strip().isdecimal() for line in lines if line.strip()):
        return (
            f"{file} has numbers alone, as ILSVRC2012_validation_ground_truth.txt: these count the classes in the "
            "development kit's own order, not in that of WordNet ids; give a file of names and WordNet ids, such as "
            "Kaggle's LOC_val_solution.csv"
        )
    return f"{file}, line {number}: {lines[number - 1].strip()!r} is no picture's name and class"


def _real_labels(file: Path, classes: int) -> list[frozenset[int]]:
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {str(error).splitlines()[0]}") from error
    expected = f"{file} is not reassessed-imagenet's real.json: expected a list of lists of labels below {classes}"
    if not isinstance(document, list) or not all(isinstance(labels, list) for labels in document):
        raise DataError(expected)
    for place, labels in enumerate(document):
        if not all(type(label) is int and 0 <= label < classes for label in labels):
            raise DataError(f"{expected}, item {place} is {labels!r}")
    return [frozenset(labels) for labels in document]
