"""Named distillation settings hold where nothing else is said."""

from __future__ import annotations

import pytest

from prism_fast.config import DistillConfig, assign, load_config
from prism_fast.config.recipes import recipe, recipes
from prism_fast.errors import ConfigError


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_a_valid_one(name: str) -> None:
    made = DistillConfig(recipe=name)
    for key, value in recipe(name).items():
        if not isinstance(value, dict | list):
            assert getattr(made, key) == value


def test_what_a_document_says_wins() -> None:
    made = DistillConfig.model_validate({"recipe": "a3-like", "lr": 0.1, "augment": {"mixup": 0.5}})
    assert (made.lr, made.optimizer) == (0.1, "lamb")
    assert (made.augment.mixup, made.augment.cutmix) == (0.5, 1.0)


def test_who_asks_for_a_recipe_gets_all_of_it() -> None:
    """On top of a document that says otherwise; what is said after it wins again."""
    made = load_config("minis-emoji", ("distill.recipe=a3-like", "distill.weight_decay=0.5")).distill
    assert (made.optimizer, made.lr, made.weight_decay) == ("lamb", recipe("a3-like")["lr"], 0.5)
    again = assign(load_config("minis-emoji"), {"distill.recipe": "patient"}).distill
    assert again.teacher == "live"


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"no recipe is called 'slow'; there are a3-like, fast, finetune, inherit, patient"
    ):
        load_config("minis-emoji", ("distill.recipe=slow",))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"losses": [{"name": "crd"}]}, "crd compares features, which only a teacher pass gives"),
        ({"losses": [{"name": "best"}]}, "expected a mapping with a name of kl, hard_label"),
        ({"students": [{"name": "a"}, {"name": "a"}]}, "students must have names of their own, got a, a"),
        ({"students": [{"name": "../a"}]}, "pattern"),
        ({"views_per_decode": 3}, "no multiple of views_per_decode 3"),
        ({"batch_size": 63, "augment": {"mixup": 0.2}}, "must be a multiple of 2, got 63"),
    ],
)
def test_contradictions_are_named(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        assign(load_config("minis-emoji"), {f"distill.{key}": value for key, value in changes.items()})


def test_a_student_has_what_it_names_and_else_the_recipes() -> None:
    recipe_ = DistillConfig.model_validate(
        {"lr": 0.5, "students": [{"name": "a"}, {"name": "b", "lr": 0.1, "losses": [{"name": "dist"}]}]}
    )
    one, other = recipe_.each_student()
    assert (one.lr, one.terms()[0].name) == (0.5, "kl")
    assert (other.lr, other.terms()[0].name) == (0.1, "dist")
