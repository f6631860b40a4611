"""What is beside a classifier's weights: our own ``config.json``, or that of a timm model from the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from prism_fast.errors import DataError


class ClassifierConfig(BaseModel):
    """``config.json`` beside a classifier's weights.

    ``label_names``: what the classes are called, in order, where the checkpoint says so; written only if it does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str
    num_classes: int = Field(gt=0)
    image_size: int = Field(gt=0)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    label_names: tuple[str, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, make: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = make(self)
        return {key: value for key, value in made.items() if key != "label_names" or value is not None}


_REQUIRED = tuple(name for name, known in ClassifierConfig.model_fields.items() if known.is_required())


@dataclass(frozen=True)
class Description:
    """A classifier's configuration, and the arguments that timm needs besides."""

    config: ClassifierConfig
    options: Mapping[str, Any] = field(default_factory=dict)


def read_document(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``.

    Raises:
        DataError: it is none. FileNotFoundError: there is no file.
    """
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # not JSON, or not text
        raise DataError(f"{file} is not a classifier's: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict):
        raise DataError(f"{file} is not a classifier's: expected a JSON object with {', '.join(_REQUIRED)}")
    return document


def describe(file: Path) -> Description:
    """The classifier that ``config.json`` describes, in our format or in timm's.

    Raises:
        DataError: it is neither; the message names the key. FileNotFoundError: there is no file.
    """
    document = read_document(file)
    if "pretrained_cfg" in document or "input_size" in document:
        return _of_timm(file, document)
    if "labels" in document:
        document.setdefault("label_names", document.pop("labels"))
    return Description(validated(file, document))


def validated(file: Path, document: dict[str, Any]) -> ClassifierConfig:
    """The configuration of these values, which were made from ``file``.

    Raises:
        DataError: one is missing, unknown or of a wrong type.
    """
    try:
        config = ClassifierConfig.model_validate(document)
    except ValidationError as error:
        raise DataError(f"{file} is not a classifier's: {_first(error)}; expected {', '.join(_REQUIRED)}") from error
    if config.label_names is not None and len(config.label_names) != config.num_classes:
        raise DataError(
            f"{file} is not a classifier's: it has {len(config.label_names)} label_names for {config.num_classes} "
            "classes; give one a class, or none"
        )
    return config


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{key!r} is missing"
    if first["type"] == "extra_forbidden":
        return f"{key!r} is an unknown key"
    return f"{key!r}: {first['msg']}"


def _of_timm(file: Path, document: dict[str, Any]) -> Description:
    """Timm's hub format: what pixels must look like is in ``pretrained_cfg``, in old files beside everything else."""
    pretrained, options = document.get("pretrained_cfg", document), document.get("model_args") or {}
    if not isinstance(pretrained, dict) or not isinstance(options, dict):
        raise DataError(f"{file} is not a classifier's: pretrained_cfg and model_args must be JSON objects")
    names = document.get("label_names") or pretrained.get("label_names") or pretrained.get("labels")
    found = {
        "architecture": document.get("architecture", pretrained.get("architecture")),
        "num_classes": document.get("num_classes", pretrained.get("num_classes")),
        "image_size": _image_size(file, pretrained.get("input_size")),
        "mean": pretrained.get("mean"),
        "std": pretrained.get("std"),
        "label_names": names if isinstance(names, list) else None,
    }
    known = {key: value for key, value in found.items() if value is not None}
    return Description(validated(file, known), options)


def _image_size(file: Path, size: object) -> int | None:
    if size is None:
        return None
    if not (isinstance(size, list) and len(size) == 3 and size[0] == 3 and size[1] == size[2]):
        raise DataError(f"{file} is not a classifier's: input_size is {size!r}; expected [3, side, side]")
    return int(size[1])
