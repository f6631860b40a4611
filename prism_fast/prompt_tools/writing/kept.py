"""Answers that were accepted, a file each beside the bank: whoever starts again asks only for the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from prism_fast.labels.bank import BankEntry
from prism_fast.prompt_tools.writing.request import Request
from prism_fast.storage.files import make_folder, read, replace, sweep, writing


@dataclass(frozen=True)
class Kept:
    """The folder ``OUT.answers``: ``<digest of model and request>.json``."""

    folder: Path
    model: str

    @classmethod
    def beside(cls, out: Path, model: str) -> Kept:
        """The answers of a model for the bank ``out``; made if it is not there.

        Raises:
            RunError: the disk refused.
        """
        folder = out.with_name(f"{out.name}.answers")
        with writing(folder, ""):
            make_folder(folder)
            sweep(folder)
        return cls(folder, model)

    def get(self, request: Request, log: Callable[[str], None]) -> BankEntry | None:
        """The entry that was accepted, if any; a file that holds none is asked for again."""
        path = self._path(request)
        try:
            return BankEntry.model_validate(json.loads(read(path))["entry"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, ValidationError) as error:
            log(f"{path} holds no entry ({' '.join(str(error).split())[:80]}); {request.label.name!r} is asked again")
            return None

    def put(self, request: Request, entry: BankEntry) -> None:
        """Keep an entry, at once and whole.

        Raises:
            RunError: the disk refused.
        """
        held = {"class": request.label.name, "model": self.model, "entry": entry.model_dump(mode="json")}
        path = self._path(request)
        with writing(path, "accepted answers are kept, "):
            replace(path, json.dumps(held, indent=1).encode())

    def _path(self, request: Request) -> Path:
        return self.folder / f"{request.digest(self.model)}.json"
