"""Captions give scenes and sorts; what they do not give is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prism_fast.errors import DataError, InputError
from prism_fast.labels.bank import load_bank
from prism_fast.labels.load import load_label_space
from prism_fast.prompt_tools.writing.caption_text import Said, Terms, place_of, said_in
from prism_fast.prompt_tools.writing.captions import FromCaptions, bank_from_captions

CLASSES = [
    {"name": "crane", "definition": "A tall wading bird; it lives in marshes.", "concepts": ["sandhill"]},
    {"name": "sunglasses", "sense": "sunglasses", "definition": "dark spectacles worn against the sun"},
]
CRANES = [
    "A photo of a grey crane in a shallow marsh.",
    "the white crane, flying over a lake",
    "an old crane is standing on one leg",
    "A sleeping crane under a full moon at midnight",
    "cranes walking across a meadow",
    "Two sandhills behind a fence, at noon",
    "Cranes in a zoo hall with an old museum diorama",
    "crane among reeds",
    "crane beside a pond",
]


def captioned(folder: Path, lines: list[dict[str, Any]], **given: Any) -> FromCaptions:
    (folder / "labels.yaml").write_text(json.dumps({"name": "mine", "classes": CLASSES}))
    (folder / "c.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return bank_from_captions(str(folder / "labels.yaml"), folder / "c.jsonl", folder / "bank.yaml", **given)


def about(name: str, captions: list[str], **more: Any) -> list[dict[str, Any]]:
    return [{"class": name, "caption": caption, **more} for caption in captions]


@pytest.mark.parametrize(
    ("caption", "scene", "variant"),
    [
        ("A photo of a grey crane in a marsh.", "in a marsh", "grey crane"),
        ("a big, old crane wading", None, None),
        ("the crane is standing on one leg, asleep", "standing on one leg", None),
        ("Two cranes In flight", "in flight", None),
        ("a photo crane in fog", "in fog", None),
        ("a bird with crane on it", "on it", None),
        ("a tall sandhill by a road", "by a road", None),
        ("craned necks in a crowd", None, None),
        ("a crane string quartet", None, None),
        ("a crane of the north", None, None),
        (f"a crane in{' very' * 12} deep water", None, None),
    ],
)
def test_what_a_caption_says(caption: str, scene: str | None, variant: str | None) -> None:
    assert said_in(caption, Terms.of("crane", ("cranes", "sandhill"))) == Said(scene, variant)


def test_a_name_of_two_words_is_found_across_a_line() -> None:
    found = said_in("the tall common\n crane by a road", Terms.of("common crane", ()))
    assert found == Said("by a road", "tall common crane")


@pytest.mark.parametrize(
    ("scene", "place"),
    [
        ("on a coral reef", "underwater"),
        ("under a starry sky", "night"),
        ("on the kitchen floor", "indoors"),
        ("in a field", "outdoors"),
        ("in bedrock", "outdoors"),
    ],
)
def test_where_a_scene_is(scene: str, place: str) -> None:
    assert place_of(scene) == place


def test_a_bank_is_what_the_captions_say(tmp_path: Path) -> None:
    lines = [*about("crane", CRANES, kind="bird"), *about("sunglasses", ["a face"])]
    lines += about("sunglasses", ["sunglasses next to a lamp"], setting="indoors")
    done = captioned(tmp_path, lines)
    crane, glasses = load_bank(str(done.out), load_label_space(str(tmp_path / "labels.yaml")))
    assert (crane.name, crane.plural, crane.kind, crane.sense) == ("crane", "cranes", "bird", "tall wading bird")
    assert crane.variants == ("grey crane", "white crane", "old crane", "sleeping crane")
    assert crane.scenes["night"] == ("under a full moon at midnight",)
    assert crane.scenes["indoors"] == ("in a zoo hall with an old museum diorama",)
    assert crane.scenes["outdoors"][:2] == ("in a shallow marsh", "flying over a lake")
    assert (glasses.plural, glasses.kind) == ("sunglasses", "object")
    assert (glasses.sense, glasses.scenes) == ("dark spectacles worn against the sun", {"indoors": ("next to a lamp",)})
    assert (done.captions, done.unused, done.scenes, done.variants, done.bare) == (11, 1, 10, 4, ())
    assert [(one.key, one.problem) for one in done.complaints] == [("sunglasses", "1 scenes; 8 are the fewest")]


def test_what_the_linter_refuses_and_too_few_sorts_are_unused(tmp_path: Path) -> None:
    given = ["crane on its nest", "a red crane", "a blue crane in fog", "crane in fog"]
    done = captioned(tmp_path, about("crane", given))
    assert (done.scenes, done.variants, done.unused, done.bare) == (1, 0, 2, ("sunglasses",))


def test_a_right_bank_has_no_complaints(tmp_path: Path) -> None:
    scenes = [f"beside a {place}" for place in ("hut", "road", "pool", "wall", "pier", "tree", "rock", "ditch")]
    lines = [line for name in ("crane", "sunglasses") for line in about(name, [f"{name} {scene}" for scene in scenes])]
    assert captioned(tmp_path, lines).complaints == ()
    assert captioned(tmp_path, lines).complaints == ()  # its own file is written again


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"class": "crane"}', r"line 2 is no .*: caption: Field required"),
        ("crane in fog", r"line 2 is no .*: Invalid JSON"),
        ('{"class": "heron", "caption": "x"}', r"line 2: mine has no class 'heron'"),
        ('{"class": "crane", "caption": "x", "kind": "dog"}', r"line 2: kind 'dog', but line 1 says 'bird'"),
        ('{"class": "crane", "caption": "x", "setting": "home"}', r"line 2 is no .*: setting: Input should be"),
        ('{"class": "crane", "caption": "x\\ud800"}', r"line 2 is no .*: Invalid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    captioned(tmp_path, about("crane", CRANES))
    (tmp_path / "c.jsonl").write_text('{"class": "crane", "caption": "x", "kind": "bird"}\n' + line)
    with pytest.raises(DataError, match=problem):
        bank_from_captions(str(tmp_path / "labels.yaml"), tmp_path / "c.jsonl", tmp_path / "other.yaml")
    assert not (tmp_path / "other.yaml").exists()


def test_no_captions_and_a_bank_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.jsonl holds no captions"):
        captioned(tmp_path, [])
    with pytest.raises(InputError, match=r"none\.jsonl cannot be read: No such file"):
        bank_from_captions(str(tmp_path / "labels.yaml"), tmp_path / "none.jsonl", tmp_path / "bank.yaml")
    (tmp_path / "bank.yaml").write_text("crane: {name: crane}")
    with pytest.raises(InputError, match="was not written by this command"):
        captioned(tmp_path, about("crane", CRANES))


def test_the_emoji_vocabulary_needs_no_scenes(tmp_path: Path) -> None:
    assert captioned(tmp_path, about("crane", ["crane"]), axes="emoji").complaints == ()
