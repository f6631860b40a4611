"""The teacher that guided a run, and no other."""

from __future__ import annotations

from pathlib import Path

from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import DataError
from prism_fast.models.bundled import resolve
from prism_fast.models.classifier import Classifier, load_classifier
from prism_fast.models.content_hash import content_hash


def run_teacher(directory: RunDirectory) -> Classifier:
    """The classifier that ``run.json`` names.

    Raises:
        DataError: it is not the one that the records name, or its directory is wrong. InputError: it is not there.
    """
    path = resolve(directory.config().models.teacher, "teacher")
    teacher = load_classifier(path)
    found = content_hash(Path(path)) if Path(path).exists() else path
    if any(record.models.get("teacher") != found for record in directory.records().values()):
        raise DataError(f"{path} is not the teacher that guided {directory.path}; put that one back")
    return teacher
