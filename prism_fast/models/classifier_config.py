"""What is beside a classifier's weights: our own ``config.json``, or that of a timm model from the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from prism_fast.errors import DataError
from prism_fast.models.json_object import read_object
from prism_fast.models.structure.description import Structure
from prism_fast.storage.yaml_document import cut

#: The largest side of a picture, as in a run's configuration.
MOST_SIDE = 16_384
_MOST_CLASSES = 1_000_000
_Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
_Std = Annotated[float, Field(ge=1e-6, le=1e6)]


class ClassifierConfig(BaseModel):
    """``config.json`` beside a classifier's weights.

    What is optional is there where the checkpoint says so, and written only then: ``label_names``, what the classes are
    called, in order; ``crop_pct``, ``interpolation`` and ``crop_mode``, how timm crops a picture for these weights;
    ``tag``, timm's name of them (``a1_in1k``); ``structure``, how the network differs from timm's of its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str
    num_classes: int = Field(gt=0, le=_MOST_CLASSES)
    image_size: int = Field(gt=0, le=MOST_SIDE)
    mean: tuple[_Mean, _Mean, _Mean]
    std: tuple[_Std, _Std, _Std]
    label_names: tuple[str, ...] | None = None
    crop_pct: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    interpolation: str | None = None
    crop_mode: str | None = None
    tag: str | None = None
    structure: Structure | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, make: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = make(self)
        return {key: value for key, value in made.items() if value is not None}


_REQUIRED = tuple(name for name, known in ClassifierConfig.model_fields.items() if known.is_required())


@dataclass(frozen=True)
class Description:
    """A classifier's configuration, and the arguments that timm needs besides."""

    config: ClassifierConfig
    options: Mapping[str, Any] = field(default_factory=dict)


def describe(file: Path) -> Description:
    """The classifier that ``config.json`` describes, in our format or in timm's.

    Raises:
        DataError: it is neither; the message names the key. FileNotFoundError: there is no file.
    """
    document = read_object(file)
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
    if options.get("in_chans", 3) != 3:
        raise DataError(f"{file} is of a classifier of {options['in_chans']} channels; expected 3")
    options = {key: value for key, value in options.items() if key not in ("num_classes", "in_chans")}
    names = document.get("label_names") or pretrained.get("label_names") or pretrained.get("labels")
    found = {
        "architecture": document.get("architecture", pretrained.get("architecture")),
        "num_classes": document.get("num_classes", pretrained.get("num_classes")),
        "image_size": _image_size(file, pretrained.get("input_size")),
        "mean": pretrained.get("mean"),
        "std": pretrained.get("std"),
        "label_names": names if isinstance(names, list) else None,
        **{key: pretrained.get(key) for key in ("crop_pct", "interpolation", "crop_mode", "tag")},
    }
    known = {key: value for key, value in found.items() if value is not None}
    return Description(validated(file, known), options)


def _image_size(file: Path, size: object) -> object:
    if size is None:
        return None
    if not (isinstance(size, list) and len(size) == 3 and size[0] == 3 and size[1] == size[2]):
        raise DataError(f"{file} is not a classifier's: input_size is {cut(repr(size))}; expected [3, side, side]")
    return size[1]
