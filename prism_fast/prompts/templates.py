"""Prompts from templates: which content, style and template each sample of a class gets."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from prism_fast.config import PromptsConfig
from prism_fast.labels.space import LabelSpace
from prism_fast.prompts.content import contents_of
from prism_fast.prompts.disambiguate import class_fields
from prism_fast.prompts.row import PlanRow


@lru_cache(maxsize=4096)
def _order(seed: int, label: int, lap: int, count: int) -> np.ndarray:
    """A permutation of the combinations that depends only on its arguments."""
    return np.random.Generator(np.random.Philox(key=[seed, label], counter=[0, 0, 1, lap])).permutation(count)


class TemplatePrompts:
    """The prompts of a label space without a bank.

    Every (content, style) pair of a class comes once before any comes twice, in an order shuffled by the seed; the
    templates take turns.
    """

    def __init__(self, config: PromptsConfig, space: LabelSpace, seed: int) -> None:
        self.config, self.space, self.seed = config, space, seed

    def lap(self, label: int) -> int:
        """(content, style) pairs of a class."""
        return len(contents_of(self.space.classes[label], self.config)) * len(self.config.styles)

    def _pair(self, label: int, turn: int) -> tuple[str, str]:
        contents, styles = contents_of(self.space.classes[label], self.config), self.config.styles
        pairs = len(contents) * len(styles)
        lap, step = divmod(turn, pairs)
        pick = int(_order(self.seed, label, lap, pairs)[step])
        return contents[pick // len(styles)], styles[pick % len(styles)]

    def choices(self, label: int, turn: int) -> dict[str, str]:
        """Content and style."""
        content, style = self._pair(label, turn)
        return {"content": content, "style": style}

    def row(self, index: int, label: int, turn: int) -> PlanRow:
        """Row ``index`` of a plan, which is the class's turn ``turn``.

        Raises:
            KeyError: a template names an unknown field. ValueError, IndexError, AttributeError: it is no format string.
        """
        cls = self.space.classes[label]
        content, style = self._pair(label, turn)
        template = self.config.templates[turn % len(self.config.templates)]
        prompt = template.format(style=style, content=content, **class_fields(cls))
        return PlanRow(
            index=index,
            label=label,
            class_name=cls.name,
            prompt=" ".join(prompt.split()),
            style=style,
            content=content,
            negative_prompt=self.config.negative,
        )
