"""Where a run's prompts come from: each class has an endless sequence of them, the same in every run of that seed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from prism_fast.config import PromptsConfig
from prism_fast.labels.space import LabelSpace
from prism_fast.prompts.row import PlanRow
from prism_fast.prompts.templates import TemplatePrompts


class Prompts(Protocol):
    """Each class's sequence of prompts; its place in it is a *turn*."""

    space: LabelSpace

    def row(self, index: int, label: int, turn: int) -> PlanRow:
        """Row ``index`` of a plan, which is the class's turn ``turn``."""

    def choices(self, label: int, turn: int) -> Mapping[str, str]:
        """What that turn's prompt was made of: sort, scene and each axis's value; content and style of a template."""

    def lap(self, label: int) -> int:
        """How many turns the sequence has before a prompt may come again."""


@lru_cache(maxsize=4)
def prompts_of(config: PromptsConfig, space: LabelSpace, seed: int) -> Prompts:
    """The same object for the same arguments: what it draws it draws once.

    Raises:
        ConfigError: the bank is wrong. InputError: there is no such bank.
    """
    if config.bank is None:
        return TemplatePrompts(config, space, seed)
    from prism_fast.prompts.banked import BankPrompts  # loads scipy and inflect

    return BankPrompts(config, space, seed)
