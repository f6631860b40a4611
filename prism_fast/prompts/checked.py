"""The prompt bank of a configuration, checked with the tokenizer of its model where that is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prism_fast.config import RunConfig
from prism_fast.errors import ConfigError
from prism_fast.labels.bank import load_bank
from prism_fast.labels.load import load_label_space
from prism_fast.labels.vocabulary import load_vocabulary
from prism_fast.models.bundled import resolve
from prism_fast.prompts.lint import Complaint, Tokens, lint


@dataclass(frozen=True)
class Checked:
    """What was found; ``counted`` says with which tokenizer lengths were counted, if with any."""

    classes: int
    complaints: tuple[Complaint, ...]
    counted: str


def check_bank(config: RunConfig) -> Checked:
    """Everything that is wrong with the bank of a run.

    Raises:
        ConfigError: the run has no bank, or what it names is none. InputError: there is no such bank.
    """
    bank = config.prompts.bank
    if bank is None:
        raise ConfigError(f"{config.name} makes its prompts from templates; set prompts.bank to check one")
    space, vocabulary = load_label_space(config.labels), load_vocabulary(config.prompts.axes)
    entries = dict(zip((cls.name for cls in space.classes), load_bank(bank, space), strict=True))
    tokens, counted = _tokens(Path(resolve(config.models.diffusion, "diffusion")) / "tokenizer")
    found = lint(entries, vocabulary, tokens, "{scene}" in vocabulary.form)
    return Checked(len(entries), tuple(found), counted)


def _tokens(folder: Path) -> tuple[Tokens | None, str]:
    if not folder.is_dir():
        return None, f"lengths not counted, for there is no {folder}"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return (lambda prompt: len(tokenizer(prompt).input_ids)), "lengths counted with the model's tokenizer"
