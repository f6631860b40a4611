"""The bank of a check: each checked class with its best sense first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from prism_fast.config import RunConfig
from prism_fast.errors import ConfigError, InputError
from prism_fast.labels.bank import BankEntry, class_keys, load_bank
from prism_fast.labels.space import LabelSpace
from prism_fast.prompt_tools.checking.verdict import ClassVerdict
from prism_fast.storage.files import create, make_folder, read, writing

_HEAD = "# Written by 'prism-fast prompts check --choose': senses that the teacher confirms most often come first.\n"


def require_bank(config: RunConfig) -> None:
    """Refuse a configuration that has no senses to choose from.

    Raises:
        ConfigError: its prompts are made from templates.
    """
    if config.prompts.bank is None:
        raise ConfigError(f"--choose needs a prompt bank, and {config.name} has templates; set prompts.bank")


def bank_text(config: RunConfig, space: LabelSpace, verdicts: Sequence[ClassVerdict]) -> str:
    """All classes of the configuration's bank as YAML; of those with a verdict, the best sense is the sense."""
    assert config.prompts.bank is not None
    entries = dict(enumerate(load_bank(config.prompts.bank, space)))
    for verdict in verdicts:
        entries[verdict.label] = _with_best(entries[verdict.label], verdict)
    document = {key: _plain(entry) for key, entry in zip(class_keys(space), entries.values(), strict=True)}
    return _HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _with_best(entry: BankEntry, verdict: ClassVerdict) -> BankEntry:
    if verdict.best == 0:
        return entry
    best = verdict.senses[verdict.best].sense
    others = tuple(one.sense for one in verdict.senses if one.sense != best)
    return entry.model_copy(update={"sense": best, "alternatives": others})


def _plain(entry: BankEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_defaults=True)


def write_bank(path: Path, text: str) -> None:
    """Write it, once: a file that is there and says the same is left as it is.

    Raises:
        InputError: one is there that says something else. RunError: the disk refused.
    """
    data = text.encode()
    with writing(path):
        make_folder(path.parent)
        if create(path, data):
            return
    try:
        same = read(path) == data
    except OSError as error:
        raise InputError(
            f"{path} is there and cannot be read ({error.strerror or error}); name another file"
        ) from error
    if not same:
        raise InputError(f"{path} is there and says something else; delete it, or name another file with --choose")
