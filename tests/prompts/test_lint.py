"""The linter names what is wrong with a bank, and says nothing of a right one."""

from __future__ import annotations

from typing import Any

import pytest

from prism_fast.labels.bank import BankEntry
from prism_fast.labels.vocabulary import Value, Vocabulary, load_vocabulary
from prism_fast.prompts.lint import lint
from tests.prompts.test_banked import CRANE

PICTURES = load_vocabulary("pictures")
HOIST = BankEntry.model_validate(
    {
        "name": "construction hoist",
        "plural": "construction hoists",
        "kind": "structure",
        "sense": "yellow steel frame that lifts loads on building sites",
        "scenes": {"outdoors": [f"beside tower {i}" for i in range(8)]},
    }
)


def problems(**changes: Any) -> list[str]:
    entries = {"crane": BankEntry.model_validate(CRANE.model_dump() | changes), "hoist": HOIST}
    return [complaint.problem for complaint in lint(entries, PICTURES) if complaint.key == "crane"]


def test_a_right_entry_is_not_complained_of() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "construction hoist", "plural": "construction hoists", "variants": ()}, "another class is called"),
        ({"name": "the crane", "plural": "the cranes"}, "has an article"),
        ({"name": "crane (bird)", "plural": "cranes", "variants": ()}, "a mark that prompts cannot have"),
        ({"plural": "crane birds"}, "'crane birds' is no plural of 'crane'"),
        ({"sense": " ".join(["long"] * 13)}, "has 13 words, 12 are the most"),
        ({"sense": "a tall bird"}, "has an article in front"),
        ({"sense": "tall bird, grey"}, "a mark that prompts cannot have"),
        ({"sense": "Crane"}, "the sense is the name again"),
        ({"alternatives": ("yellow construction hoist with a hook",)}, "is another class: construction hoist"),
        ({"variants": ("grey crane", "old crane")}, "2 variants; 4 are the fewest, or none"),
        ({"variants": ("a crane", "b crane", "B crane", "c crane")}, "'b crane' is there twice"),
        ({"variants": ("grey bird", "b crane", "d crane", "c crane")}, "'grey bird' does not end with 'crane'"),
        ({"scenes": {"outdoors": ("in a marsh",)}}, "1 scenes; 8 are the fewest"),
        ({"scenes": {"outdoors": ("in a marsh", *CRANE.scenes["outdoors"], "in a marsh", "at sea", "up", "by a hut")}},
         "the scene 'in a marsh' is there twice"),
        ({"scenes": {**CRANE.scenes, "underwater": ("showing its beak",)}}, "not right after one and several: 'its'"),
        ({"scenes": {**CRANE.scenes, "underwater": (" ".join(["by"] * 15),)}}, "has 15 words, 14 are the most"),
        ({"scenes": {**CRANE.scenes, "underwater": ("the old pond",)}}, "begins with an article"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    found = problems(**changes)
    assert any(said in problem for problem in found), found


PLURALS = (
    ("cacti", "cactus"), ("cactuses", "cactus"), ("sheep", "sheep"), ("pairs of scissors", "pair of scissors"),
    ("wolves", "wolf"), ("meatloaves", "meatloaf"), ("Border terriers", "Border terrier"),
)  # fmt: skip


@pytest.mark.parametrize(("plural", "name"), PLURALS)
def test_plurals_of_several_kinds_are_right(plural: str, name: str) -> None:
    assert problems(name=name, plural=plural, variants=()) == []


def test_too_many_tokens_are_counted_by_the_models_own_tokenizer() -> None:
    found = list(lint({"crane": CRANE}, PICTURES, tokens=lambda prompt: 3 * len(prompt.split())))
    assert len(found) == 1
    assert "tokens, 60 are the most: '" in found[0].problem
    assert list(lint({"crane": CRANE}, PICTURES, tokens=lambda prompt: len(prompt.split()))) == []


def test_an_axis_without_a_value_for_a_place_is_named() -> None:
    narrow = Vocabulary(
        form="{style} of {sort}, {scene}", style="style", axes={"style": (Value(text="a photo", places=("indoors",)),)}
    )
    (complaint,) = lint({"crane": CRANE}, narrow)
    assert complaint.problem == "no value of the axis 'style' suits a bird outdoors"
