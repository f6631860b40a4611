"""The plan: balanced, deterministic, stable under longer runs, covering before repeating."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from prism_fast.config import PromptsConfig, RunConfig, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.errors import ConfigError
from prism_fast.labels.load import load_label_space
from prism_fast.labels.space import ClassLabel, LabelSpace
from prism_fast.prompts.row import PlanRow
from prism_fast.prompts.templates import TemplatePrompts

STYLES = ("noto", "blob", "sketch")
SPACE = LabelSpace(
    name="pets",
    classes=(
        ClassLabel(name="cat", sense="house cat", concepts=("tabby", "lynx", "kitten", "puma")),
        ClassLabel(name="crane", sense="wading bird", definition="a bird of marshes"),
    ),
)


def _prompts(**changes: Any) -> PromptsConfig:
    settings = {"templates": ("{style} {content}",), "styles": STYLES, "contents": ("{sense}", "two {name}")}
    return PromptsConfig.model_validate({**settings, **changes})


def _rows(count: int, seed: int = 0, **changes: Any) -> list[PlanRow]:
    prompts, classes = TemplatePrompts(_prompts(**changes), SPACE, seed), len(SPACE.classes)
    return [prompts.row(i, i % classes, i // classes) for i in range(count)]


def test_any_prefix_is_balanced_to_within_one() -> None:
    counts: Counter[str | int] = Counter(dict.fromkeys(range(2), 0))
    for row in _rows(101):
        counts[row.label] += 1
        assert max(counts.values()) - min(counts.values()) <= 1
        assert row.class_name == SPACE.classes[int(row.label)].name


@pytest.mark.parametrize("label", [0, 1])
def test_every_pair_comes_once_before_any_comes_twice(label: int) -> None:
    pairs = 12 if label == 0 else 6
    own = [(row.content, row.style) for row in _rows(2 * 3 * pairs) if row.label == label]
    laps = [own[i : i + pairs] for i in range(0, len(own), pairs)]
    assert len(laps) == 3
    for lap in laps:
        assert len(set(lap)) == pairs
    assert laps[0] != laps[1], "each lap has its own order"


def test_contents_are_the_classs_concepts_when_wanted() -> None:
    own = {row.content for row in _rows(60) if row.label == 0}
    assert own == {"tabby", "lynx", "kitten", "puma"}
    assert {row.content for row in _rows(60) if row.label == 1} == {"wading bird", "two crane"}
    without = {row.content for row in _rows(60, use_concepts=False) if row.label == 0}
    assert without == {"house cat", "two cat"}


def test_templates_take_turns_and_fields_are_filled() -> None:
    templates = ("A {style} of {content}", "B  {name}; {sense}; {definition}")
    rows = [row for row in _rows(40, templates=templates) if row.label == 1]
    assert [str(row.prompt)[0] for row in rows[:4]] == ["A", "B", "A", "B"]
    assert rows[1].prompt == "B crane; wading bird; a bird of marshes"
    assert rows[0].prompt == f"A {rows[0].style} of {rows[0].content}"


@pytest.mark.parametrize("templates", [("{style} {content}",), ("A {style} {content}", "B {style} {content}")])
def test_the_seed_changes_the_order_and_only_the_seed(templates: tuple[str, ...]) -> None:
    assert _rows(50, templates=templates) == _rows(50, templates=templates)
    assert _rows(50, templates=templates) != _rows(50, seed=1, templates=templates)
    by_seed = [sorted(row.style for row in _rows(36, seed) if row.label == 1) for seed in (0, 1)]
    assert by_seed[0] == by_seed[1], "another order of the same pairs"


def test_negative_prompts_are_carried() -> None:
    assert {row.negative_prompt for row in _rows(4, negative="blurry")} == {"blurry"}


@pytest.mark.parametrize("name", ["minis-emoji", "imagenet1k-sd15"])
def test_bundled_plans_are_prefix_stable_and_unambiguous(name: str) -> None:
    config = load_config(name)
    longer, shorter = build_plan(config, 1200), build_plan(config, 37)
    assert longer[:37] == shorter
    assert [row.index for row in longer] == list(range(1200))
    assert all(row.prompt.strip() and "{" not in row.prompt for row in longer)


def test_the_emoji_plan_uses_every_style_in_every_class() -> None:
    config = load_config("minis-emoji")
    plan = build_plan(config, config.synthesis.images)
    styles = Counter((row.label, row.style) for row in plan)
    assert len(styles) == 16 * len(config.prompts.styles)
    pairs = Counter((row.label, row.content, row.style) for row in plan)
    for label, cls in enumerate(load_label_space("emoji").classes):
        possible = len(cls.concepts) * len(config.prompts.styles)
        own = [count for key, count in pairs.items() if key[0] == label]
        assert len(own) == min(possible, config.synthesis.images // 16)
        assert max(own) - min(own) <= 1


@pytest.mark.parametrize("field", ["templates", "contents"])
@pytest.mark.parametrize("text", ["{colour}", "{content", "{0}", "{sense.x}", "{sense:5d}"])
def test_a_broken_template_is_one_clear_line(field: str, text: str) -> None:
    data = load_config("minis-emoji").model_dump()
    data["prompts"] |= {field: [text], "use_concepts": False}
    with pytest.raises(ConfigError, match="prompts: a template"):
        build_plan(RunConfig.model_validate(data), 1)
