"""The bank's file: written by a command, or a user's own, which is not replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from prism_fast.errors import InputError, PrismError
from prism_fast.labels.bank import BankEntry
from prism_fast.storage.files import make_folder, read, replace, writing
from prism_fast.storage.yaml_document import load_yaml

_MARK = "# Written by prism-fast prompts write"
_DIGEST = "; SHA-256 of what follows: "


@dataclass(frozen=True)
class BankFile:
    """Where the bank goes; ``before`` is what lies there."""

    path: Path
    before: bytes | None

    @classmethod
    def at(cls, path: Path) -> BankFile:
        """The bank at a path.

        Raises:
            InputError: no file can be there.
        """
        try:
            return cls(path, read(path))
        except FileNotFoundError:
            return cls(path, None)
        except OSError as error:
            raise InputError(f"--out {path} cannot be a bank: {error.strerror or error}; give another file") from error

    def require_own(self, entries: Mapping[str, BankEntry] | None) -> None:
        """Refuse to replace what was not written here, or was changed since, unless it says the same.

        Args:
            entries: what would be written; None when that is not known yet.

        Raises:
            InputError: it would be lost.
        """
        if self.before is None or _is_own(self.before) or (entries is not None and self.says(entries)):
            return
        raise InputError(
            f"{self.path} is there and was not written by this command, or was changed since; give another --out, or "
            "move it away"
        )

    def says(self, entries: Mapping[str, BankEntry]) -> bool:
        """Whether what lies there has these entries, in whatever words YAML has for them."""
        if self.before is None:
            return False
        try:
            found: object = load_yaml(self.before, str(self.path))
            return isinstance(found, dict) and entries == {
                str(k): BankEntry.model_validate(e) for k, e in found.items()
            }
        except (PrismError, ValueError):
            return False

    def write(self, entries: Mapping[str, BankEntry], source: str) -> None:
        """Write the bank, unless that is what lies there.

        Args:
            entries: by key, in the order of the labels.
            source: who said it, for the first line.

        Raises:
            InputError: what lies there would be lost. RunError: the disk refused.
        """
        self.require_own(entries)
        if self.says(entries):
            return
        with writing(self.path, ""):
            make_folder(self.path.parent)
            replace(self.path, _text(entries, source))


def _text(entries: Mapping[str, BankEntry], source: str) -> bytes:
    shown = {key: entry.model_dump(mode="json", exclude_defaults=True) for key, entry in entries.items()}
    body = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=118, default_flow_style=None).encode()
    return f"{_MARK}, {json.dumps(source)}{_DIGEST}{hashlib.sha256(body).hexdigest()}\n".encode() + body


def _is_own(data: bytes) -> bool:
    first, _, body = data.partition(b"\n")
    mark, digest = first.startswith(_MARK.encode()), first.rpartition(_DIGEST.encode())[2]
    return mark and digest == hashlib.sha256(body).hexdigest().encode()
