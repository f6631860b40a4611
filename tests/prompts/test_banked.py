"""Prompts from a bank: distinct, stratified, the same in a longer run, and plausible."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from prism_fast.config import RunConfig, load_config
from prism_fast.dataset.plan import build_plan, plan_rows
from prism_fast.errors import ConfigError, InputError
from prism_fast.labels.bank import BankEntry, bank_identity, load_bank
from prism_fast.labels.load import load_label_space
from prism_fast.labels.vocabulary import Value, Vocabulary, load_vocabulary
from prism_fast.prompts.banked import LAP, ClassPrompts

CRANE = BankEntry(
    name="crane",
    plural="cranes",
    kind="bird",
    sense="tall long-necked grey wading bird",
    variants=("grey crane", "young crane", "crowned crane", "dancing crane"),
    scenes={
        "outdoors": ("wading in a marsh", "standing in a stubble field", "flying over reeds", "beside a nest of reeds"),
        "indoors": ("in an aviary", "stuffed in a museum", "behind glass", "in a zoo shed"),
        "underwater": ("reflected in a pond",),
    },
    confusions=("construction crane",),
)
EMOJI = ("prompts.bank=bundled", "prompts.axes=emoji", "prompts.templates=[]")
PICTURES = load_vocabulary("pictures")


def prompts_of(
    entry: BankEntry, label: int = 0, lap: int = 0, photo_share: float | None = None
) -> list[dict[str, str]]:
    made = ClassPrompts(entry, PICTURES, photo_share)
    return [made.words(choice) | {"prompt": made.prompt(made.words(choice))} for choice in made.lap(0, label, lap)]


@pytest.fixture(scope="module")
def crane() -> list[dict[str, str]]:
    return prompts_of(CRANE)


def test_no_prompt_comes_twice_before_a_lap_is_spent(crane: list[dict[str, str]]) -> None:
    assert len(crane) == LAP == len({words["prompt"] for words in crane})


def test_each_lap_and_class_has_an_order_of_its_own(crane: list[dict[str, str]]) -> None:
    first = [words["prompt"] for words in crane[:50]]
    assert first == [words["prompt"] for words in prompts_of(CRANE)[:50]]
    assert first != [words["prompt"] for words in prompts_of(CRANE, lap=1)[:50]]
    assert first != [words["prompt"] for words in prompts_of(CRANE, label=1)[:50]]


@pytest.mark.parametrize("n", [25, 60, 200])
@pytest.mark.parametrize("axis", ["sort", "scene"])
def test_the_first_rows_cover_an_axis_evenly(crane: list[dict[str, str]], axis: str, n: int) -> None:
    counts = Counter(words[axis] for words in crane[:n])
    values = {"sort": 5, "scene": 9}[axis]
    assert len(counts) == values
    assert max(counts.values()) - min(counts.values()) <= max(3, 0.35 * n / values)


def test_shares_follow_the_weights(crane: list[dict[str, str]]) -> None:
    values = PICTURES.axes["medium"]
    fit = {v.text: v.weight for v in values if v.suits(CRANE, "outdoors")}
    counts = Counter(words["medium"] for words in crane)
    assert counts.keys() <= fit.keys()
    photos = sum(counts[v.text] for v in values if v.photograph) / len(crane)
    wanted = sum(v.weight for v in values if v.photograph) / sum(fit.values())
    assert photos == pytest.approx(wanted, abs=0.08)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_part_of_photographs_is_a_setting(share: float) -> None:
    photographs = {v.text for v in PICTURES.axes["medium"] if v.photograph}
    found = prompts_of(CRANE, photo_share=share)
    assert np.mean([words["medium"] in photographs for words in found]) == pytest.approx(share, abs=0.08)


def test_light_and_weather_suit_the_place(crane: list[dict[str, str]]) -> None:
    places = {scene: place for place, scenes in CRANE.scenes.items() for scene in scenes}
    allowed = {v.text: v.places for v in PICTURES.axes["light"]}
    assert all(not allowed[w["light"]] or places[w["scene"]] in allowed[w["light"]] for w in crane)
    assert {w["light"] for w in crane if places[w["scene"]] == "underwater"} >= {"in murky water"}
    assert not any("sky" in w["light"] for w in crane if places[w["scene"]] != "outdoors")


def test_prompts_are_english() -> None:
    found = " | ".join(words["prompt"] for words in prompts_of(CRANE))
    assert "a photo of a grey crane, the tall long-necked grey wading bird, " in found
    assert "two young cranes, the tall long-necked grey wading bird, " in found
    assert ", ," not in found
    assert not any(words["prompt"].endswith((",", " ")) for words in prompts_of(CRANE))
    hourglass = CRANE.model_copy(update={"name": "hourglass", "plural": "hourglasses", "variants": ()})
    assert (
        " an hourglass, " in prompts_of(hourglass)[0]["prompt"] or "hourglasses" in prompts_of(hourglass)[0]["prompt"]
    )


def test_what_cannot_be_counted_has_no_number_and_no_article() -> None:
    dip = CRANE.model_copy(
        update={"name": "guacamole", "plural": None, "uncountable": True, "variants": (), "kind": "dish"}
    )
    found = prompts_of(dip)
    assert {words["subject"] for words in found} == {"guacamole"}
    assert len({words["prompt"] for words in found}) == len(found)


def test_a_small_product_is_used_up_and_begins_again() -> None:
    small = Vocabulary(form="{style} of {sort}", style="style", axes={"style": (Value(text="a"), Value(text="b"))})
    entry = CRANE.model_copy(update={"scenes": {}})
    made = ClassPrompts(entry, small, None)
    assert len(made.lap(0, 0, 0)) == 2 * 5
    config = load_config("minis-emoji", (*EMOJI, "synthesis.images=2"))
    rows = build_plan(config, 16 * 400)
    hearts = [row.prompt for row in rows if row.class_name == "heart"]
    assert len(set(hearts)) == 6 * 16
    assert len(set(hearts[:96])) == len(set(hearts[96:192])) == 96


def test_a_row_does_not_depend_on_the_length_of_the_run() -> None:
    config = load_config("minis-emoji", EMOJI)
    space = load_label_space("emoji")
    assert plan_rows(config, space, 900, 905) == build_plan(config, 1000)[900:905]
    assert [row.label for row in build_plan(config, 20)] == [*range(16), 0, 1, 2, 3]


def test_confusions_are_avoided_on_request() -> None:
    plain, asked = (load_config("minis-emoji", (*EMOJI, *more)) for more in ([], ["prompts.avoid_confusions=true"]))
    assert build_plan(plain, 2)[1].negative_prompt == ""
    assert build_plan(asked, 2)[1].negative_prompt == "face, balloon"


def own_bank(path: Path, **entries: object) -> Path:
    path.write_text(yaml.safe_dump(entries))
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.yaml"
    path.write_text(yaml.safe_dump({"name": "lifts", "classes": [{"name": "crane"}, {"name": "hoist"}]}))
    return path


def with_bank(labels: Path, bank: Path | str) -> RunConfig:
    return load_config("minis-emoji", (f"labels={labels}", f"prompts.bank={bank}", "prompts.templates=[]"))


def test_a_bank_of_ones_own_is_hashed_by_its_content(labels: Path, tmp_path: Path) -> None:
    crane = CRANE.model_dump(mode="json", exclude_none=True)
    one = own_bank(tmp_path / "a.yaml", crane=crane, hoist={**crane, "name": "hoist", "plural": "hoists"})
    same = tmp_path / "b.yaml"
    same.write_bytes(one.read_bytes())
    other = own_bank(tmp_path / "c.yaml", crane=crane, hoist={**crane, "name": "lift", "plural": "lifts"})
    hashes = [with_bank(labels, bank).run_hash() for bank in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert "crane" in build_plan(with_bank(labels, one), 1)[0].prompt


def test_a_bank_that_lacks_a_class_is_refused(labels: Path, tmp_path: Path) -> None:
    lacking = own_bank(tmp_path / "a.yaml", crane=CRANE.model_dump(mode="json", exclude_none=True))
    with pytest.raises(InputError, match=r"lacks 1 of the classes, the first is 'hoist'"):
        build_plan(with_bank(labels, lacking), 1)
    with pytest.raises(InputError, match="no prompt bank comes with label space 'lifts'"):
        build_plan(with_bank(labels, "bundled"), 1)
    with pytest.raises(InputError, match="is neither 'bundled' nor a YAML file"):
        build_plan(with_bank(labels, tmp_path / "absent.yaml"), 1)
    wrong = own_bank(tmp_path / "b.yaml", crane={"name": "crane", "kind": "bird", "sense": "bird"}, hoist={})
    with pytest.raises(ConfigError, match="'crane' needs either a plural or uncountable"):
        build_plan(with_bank(labels, wrong), 1)


def test_a_run_has_templates_or_a_bank() -> None:
    with pytest.raises(ConfigError, match=r"bank and templates exclude each other; set templates to \[\]"):
        load_config("minis-emoji", ("prompts.bank=bundled",))
    with pytest.raises(ConfigError, match="templates is empty; give at least one, or name a bank"):
        load_config("minis-emoji", ("prompts.templates=[]",))


def test_runs_without_a_bank_keep_their_hash() -> None:
    """The keys of banks came later."""
    plain = load_config("minis-emoji")
    assert load_config("minis-emoji", ("prompts.axes=emoji", "prompts.photo_share=0.5")).run_hash() == plain.run_hash()
    assert load_config("minis-emoji", EMOJI).run_hash() != plain.run_hash()
    assert bank_identity("bundled", "emoji") != bank_identity("bundled", "imagenet1k")


def test_the_bundled_bank_of_the_emoji_names_their_concepts() -> None:
    space = load_label_space("emoji")
    for cls, entry in zip(space.classes, load_bank("bundled", space), strict=True):
        assert entry.name == cls.name
        assert set(entry.variants) == {concept for concept in cls.concepts if concept.lower() != cls.name}
        assert entry.sense == cls.phrase
