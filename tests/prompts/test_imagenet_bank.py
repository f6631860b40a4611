"""The bundled bank of ImageNet-1k: the linter is content, the known traps are right, prompts do not run out."""

from __future__ import annotations

from pathlib import Path

import pytest
from open_clip.tokenizer import SimpleTokenizer

from prism_fast.config import load_config
from prism_fast.dataset.plan import build_plan, plan_rows
from prism_fast.labels.bank import BankEntry, bundled_bank, load_bank
from prism_fast.labels.imagenet import imagenet1k_synsets
from prism_fast.labels.load import load_label_space
from prism_fast.labels.vocabulary import load_vocabulary
from prism_fast.prompts.banked import ClassPrompts
from prism_fast.prompts.lint import lint

#: Label, words that name or sense must say, words that none of its prompts may.
TRAPS = [
    (7, "rooster", "hen "),
    (8, "hen", "rooster"),
    (17, "jay", "walk"),
    (21, "bird of prey", "string"),
    (27, "newt", ""),
    (80, "black grouse", ""),
    (97, "duck", "dragon"),
    (134, "wading bird", "machine"),
    (242, "dog", "glove"),
    (254, "dog", ""),
    (264, "dog", "sweater"),
    (339, "horse", "leaf"),
    (348, "sheep", "truck"),
    (427, "barrel", "gun"),
    (435, "bathtub", ""),
    (456, "arrow", "ribbon"),
    (474, "knit", "dog"),
    (517, "machine", "bird"),
    (542, "drum", "chicken leg"),
    (610, "shirt", "cow"),
    (620, "laptop", ""),
    (638, "swimsuit", "tights"),
    (639, "swimsuit", "tights"),
    (657, "missile", ""),
    (664, "monitor", "lizard"),
    (666, "pestle", "tank"),
    (673, "computer", "rodent"),
    (677, "metal", "polish"),
    (681, "computer", "paper"),
    (744, "projectile", ""),
    (782, "screen", ""),
    (783, "metal", ""),
    (836, "sunglasses", "convex"),
    (837, "sunglasses", "convex"),
    (987, "corn", ""),
    (998, "ear", "earring"),
]


@pytest.fixture(scope="module")
def bank() -> tuple[BankEntry, ...]:
    return load_bank("bundled", load_label_space("imagenet1k"))


def test_every_class_has_its_entry_in_the_order_of_the_labels(bank: tuple[BankEntry, ...]) -> None:
    assert list(bundled_bank("imagenet1k")) == imagenet1k_synsets()
    assert len(bank) == len({entry.name.lower() for entry in bank}) == 1000


def test_the_linter_is_content_in_clips_own_tokens() -> None:
    tokenizer = SimpleTokenizer()
    found = lint(bundled_bank("imagenet1k"), load_vocabulary("pictures"), lambda text: len(tokenizer.encode(text)) + 2)
    assert list(found) == []


@pytest.mark.parametrize(("label", "said", "never"), TRAPS, ids=[str(label) for label, *_ in TRAPS])
def test_a_name_with_two_readings_is_read_as_imagenet_means_it(
    bank: tuple[BankEntry, ...], label: int, said: str, never: str
) -> None:
    entry = bank[label]
    assert said in f"{entry.name}, {entry.sense}".lower(), (entry.name, entry.sense)
    made = ClassPrompts(entry, load_vocabulary("pictures"), None)
    prompts = [made.prompt(made.words(choice)) for choice in made.lap(0, label, 0).tolist()]
    assert all(said in prompt.lower() for prompt in prompts)
    assert not never or not any(never in prompt.lower() for prompt in prompts)


def test_a_class_has_a_thousand_prompts_before_one_comes_again(bank: tuple[BankEntry, ...]) -> None:
    """For each of them; of every tenth class the prompts themselves are made and compared."""
    vocabulary = load_vocabulary("pictures")
    laps = [(made, made.lap(0, i, 0)) for i, made in enumerate(ClassPrompts(e, vocabulary, None) for e in bank)]
    assert sum(len(lap) >= 1000 for _, lap in laps) >= 950
    for made, lap in laps[::10]:
        assert len({made.prompt(made.words(choice)) for choice in lap.tolist()}) == len(lap)


def test_a_part_takes_its_classes_from_the_whole(bank: tuple[BankEntry, ...]) -> None:
    space = load_label_space("imagenette")
    assert load_bank("bundled", space) == tuple(bank[place] for place in space.indices)
    rows = build_plan(load_config("imagenette-sd15"), 10)
    assert [bank[i].sense in row.prompt for i, row in zip(space.indices, rows, strict=True)] == [True] * 10


def test_a_row_of_the_plan_is_the_same_in_a_longer_run() -> None:
    config = load_config("imagenet1k-sd15")
    space = load_label_space("imagenet1k")
    assert plan_rows(config, space, 1_281_000, 1_281_003) == plan_rows(config, space, 1_280_990, 1_281_010)[10:13]


def test_no_gloss_is_a_sense() -> None:
    """Senses are written by us: no definition that timm carries is one, nor begins one."""
    space = load_label_space("imagenet1k")
    for cls, entry in zip(space.classes, load_bank("bundled", space), strict=True):
        gloss = cls.definition.split(";")[0].strip().lower()
        assert len(gloss.split()) < 5 or gloss not in entry.sense.lower()


def test_the_page_of_samples_is_what_the_command_prints() -> None:
    """docs/prompts.md shows prompts of today's bank."""
    import random

    config = load_config("imagenet1k-sd15", ("synthesis.images=20000",))
    rows = random.Random(config.seed).sample(build_plan(config, 20_000), 200)
    page = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    assert all(row.prompt in page for row in rows)
