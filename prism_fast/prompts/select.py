"""Which content, style and template each sample of a class gets."""

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


def plan_row(config: PromptsConfig, space: LabelSpace, index: int, seed: int) -> PlanRow:
    """Row ``index`` of the plan: classes take turns, so any prefix is balanced to within one sample.

    Every (content, style) pair of the class comes once before any comes twice, in an order shuffled by the seed; the
    templates take turns. A sample's prompt never depends on how many samples the run has.
    """
    turn, label = divmod(index, len(space.classes))
    cls = space.classes[label]
    contents = contents_of(cls, config)
    pairs = len(contents) * len(config.styles)
    lap, step = divmod(turn, pairs)
    pick = int(_order(seed, label, lap, pairs)[step])
    content, style = contents[pick // len(config.styles)], config.styles[pick % len(config.styles)]
    template = config.templates[turn % len(config.templates)]
    prompt = template.format(style=style, content=content, **class_fields(cls))
    return PlanRow(
        index=index,
        label=label,
        class_name=cls.name,
        prompt=" ".join(prompt.split()),
        style=style,
        content=content,
        negative_prompt=config.negative,
    )
