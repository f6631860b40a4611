"""What is exported: a classifier and the card beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prism_fast.errors import DataError
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.models.classifier_config import ClassifierConfig
from prism_fast.models.json_object import read_object
from prism_fast.models.transformers_classifier import is_transformers


@dataclass(frozen=True)
class Source:
    """A classifier directory. ``transformers``: in that library's format. ``card``: its README, if any."""

    path: Path
    classifier: Classifier
    transformers: bool
    card: str | None

    @property
    def config(self) -> ClassifierConfig:
        """What is known of the network."""
        return self.classifier.config


def student_directory(path: Path) -> Path:
    """The classifier directory that is meant: ``path``, or the one student that ``distill`` wrote into it.

    Raises:
        DataError: there is none, or several.
    """
    if (path / "config.json").is_file():
        return path
    if (path / "student" / "config.json").is_file():
        return path / "student"
    found = sorted(one.parent for one in path.glob("*/student/config.json"))
    if len(found) > 1:
        raise DataError(f"{path} holds {len(found)} students; give one of them, for example {found[0]}")
    if not found:
        raise DataError(f"{path} holds no student; give what 'prism-fast distill' wrote, or a classifier directory")
    return found[0]


def open_source(path: Path) -> Source:
    """Load the classifier of a directory.

    Raises:
        DataError: there is none, it is incomplete, or its weights do not fit. InputError: timm does not know it.
    """
    directory = student_directory(path)
    classifier = load_classifier(str(directory))
    transformers = is_transformers(read_object(directory / "config.json"))
    return Source(directory, classifier, transformers, _card(directory / "README.md"))


def _card(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # none, or somebody else's
        return None
