"""The file of captions: a JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prism_fast.errors import DataError, InputError
from prism_fast.labels.bank import Kind, Setting
from prism_fast.storage.files import read
from prism_fast.storage.yaml_document import cut


class CaptionLine(BaseModel):
    """One picture's caption, its class, and what a caption leaves to be guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    class_name: str = Field(alias="class")
    caption: str
    kind: Kind | None = None
    setting: Setting | None = None


def caption_lines(path: Path) -> Iterator[tuple[int, CaptionLine]]:
    """Each line with its number, blank ones apart.

    Raises:
        InputError: no such file. DataError: a line that is none; the message says which.
    """
    try:
        data = read(path)
    except OSError as error:
        raise InputError(f"captions {path} cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, _parsed(line, f"{path}, line {number}")


def _parsed(line: bytes, where: str) -> CaptionLine:
    try:
        return CaptionLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f'{where} is no {{"class": ..., "caption": ...}}: {key}{": " if key else ""}{cut(first["msg"])}'
        ) from error
