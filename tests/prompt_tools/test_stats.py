"""What is measured of a plan's prompts: counts by hand, numbers from their definitions, the minis, the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from prism_fast.cli.prompts_stats import stats
from prism_fast.config import RunConfig, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.errors import ConfigError, DataError, InputError
from prism_fast.evaluation.vendi import mean_pairwise_distance, vendi_score
from prism_fast.prompt_tools import stats as module
from prism_fast.prompt_tools.stats import PromptStats, prompt_stats
from prism_fast.synthesis.text_space import TextSpace
from tests.cli.conftest import restored

BANK = ("prompts.bank=bundled", "prompts.axes=emoji", "prompts.templates=[]")
ABSENT = ("labels=imagenet1k", "prompts.bank=bundled", "prompts.templates=[]", "models.diffusion=/nowhere/sd")


@pytest.fixture(scope="module")
def bank() -> PromptStats:
    return prompt_stats(load_config("minis-emoji", BANK), images=256)


@pytest.fixture(scope="module")
def templates() -> PromptStats:
    return prompt_stats(load_config("minis-emoji", ()), images=256)


def _labels(path: Path, *classes: dict[str, str], **changes: str) -> RunConfig:
    (path / "labels.yaml").write_text(yaml.safe_dump({"name": "own", "classes": list(classes)}))
    given = [f"{key}={value}" for key, value in changes.items()]
    fixed = (f"labels={path / 'labels.yaml'}", "prompts.templates=['a {style} {sense}']", "prompts.styles=[red, blue]")
    return load_config("minis-emoji", (*fixed, *given))


def test_counts_by_hand(config: RunConfig) -> None:
    """Ten rows of three classes, each with one content in two styles: the third row of a class is a prompt again."""
    found = prompt_stats(config)
    assert [(c.rows, c.distinct, c.first_repeat) for c in found.classes] == [(4, 2, 6), (3, 2, 7), (3, 2, 8)]
    assert (found.images, found.planned, found.by_default, found.compared, found.limit) == (10, 10, True, 3, 8)
    assert (found.overall.rows, found.overall.distinct, found.overall.repeats, found.overall.shared) == (10, 6, 3, 0)
    for c in found.classes:  # [CLS] a noto style emoji of cat [SEP]
        assert c.tokens is not None
        assert (c.tokens.min, c.tokens.mean, c.tokens.max, c.tokens.too_long) == (8, 8.0, 8, 0)
        assert c.vendi is not None
        assert 1 < c.vendi <= 2


def test_a_prompt_of_two_classes_is_counted(tmp_path: Path) -> None:
    classes = [{"name": "crane", "sense": "tall crane"}, {"name": "bird"}, {"name": "hoist", "sense": "tall crane"}]
    found = prompt_stats(_labels(tmp_path, *classes), images=6, encode=False)
    assert [(c.name, c.distinct) for c in found.classes] == [("crane", 2), ("bird", 2), ("hoist", 2)]
    assert (found.overall.distinct, found.overall.shared, found.overall.repeats) == (4, 2, 0)


def test_rows_that_are_cut_are_counted_as_often_as_they_come(tmp_path: Path) -> None:
    config = _labels(tmp_path, {"name": "long", "sense": "red " * 30}, {"name": "cat"})
    first, second = prompt_stats(config, images=9).classes
    assert first.tokens is not None
    assert second.tokens is not None
    assert (first.rows, first.tokens.min, first.tokens.max, first.tokens.too_long) == (5, 34, 34, 5)
    assert (second.rows, second.tokens.mean, second.tokens.too_long) == (4, 5.0, 0)
    total = prompt_stats(config, images=9).overall.tokens
    assert total is not None
    assert (total.min, total.max, total.too_long) == (5, 34, 5)
    assert total.mean == pytest.approx((5 * 34 + 4 * 5) / 9)


@pytest.mark.parametrize("settings", [(), BANK])
def test_numbers_are_their_definitions(settings: tuple[str, ...]) -> None:
    """48 rows of 16 classes and two more: of each class three are compared, and all rows are measured together."""
    config = load_config("minis-emoji", settings)
    rows, space = build_plan(config, 50), TextSpace.load(config)
    found = prompt_stats(config, images=50)
    assert found.compared == 3
    for c in found.classes:
        prompts = [row.prompt for row in rows if row.label == c.label]
        vectors = space.vectors(prompts)
        assert (c.rows, c.distinct) == (len(prompts), len(set(prompts)))
        assert c.vendi == pytest.approx(vendi_score(vectors[:3]), rel=1e-5)
        assert c.distance == pytest.approx(mean_pairwise_distance(vectors[:3]), rel=1e-4)
        assert c.tokens is not None
        assert c.tokens.mean == pytest.approx(sum(space.tokens(prompts)) / len(prompts))
    everything = space.vectors([row.prompt for row in rows])
    assert found.overall.vendi == pytest.approx(vendi_score(everything), rel=1e-5)
    assert found.overall.distance == pytest.approx(mean_pairwise_distance(everything), rel=1e-4)
    scores = [c.vendi for c in found.classes if c.vendi is not None]
    assert found.overall.class_vendi == pytest.approx(sum(scores) / 16)
    assert found.lowest(3) == sorted(found.classes, key=lambda c: c.vendi or 0)[:3]


def test_a_bank_repeats_less_and_its_classes_lie_farther_apart(bank: PromptStats, templates: PromptStats) -> None:
    assert bank.overall.distinct > templates.overall.distinct
    assert bank.overall.repeats < templates.overall.repeats
    assert (bank.overall.vendi or 0) > (templates.overall.vendi or 0) + 0.2
    assert (bank.overall.distance or 0) > (templates.overall.distance or 0) + 0.02
    for found in (bank, templates):
        assert found.limit == 24
        for c in found.classes:
            assert c.vendi is not None
            assert c.distance is not None
            assert 1.1 < c.vendi < c.distinct
            assert 0.02 < c.distance < 0.5


def test_by_default_no_more_than_64_rows_of_a_class() -> None:
    config = load_config("minis-emoji", BANK)
    found = prompt_stats(config, encode=False)
    assert (found.images, found.planned, found.by_default) == (1024, 2880, True)
    assert {c.rows for c in found.classes} == {64}
    asked = prompt_stats(config, images=3000, classes=["heart"], encode=False)
    assert (asked.images, asked.by_default, asked.classes[0].rows) == (3000, False, 188)
    rows = [row for row in build_plan(config, 3000) if row.class_name == "heart"]
    assert asked.classes[0].distinct == len({row.prompt for row in rows})


def test_how_many_classes_are_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("minis-emoji", BANK)
    wanted = prompt_stats(config, images=100, encode=False)
    for held in (1, 21, 40):
        monkeypatch.setattr(module, "_HELD", held)
        assert prompt_stats(config, images=100, encode=False) == wanted


def test_classes_by_name_and_number(tmp_path: Path) -> None:
    config = _labels(tmp_path, {"name": "cat"}, {"name": "dog"}, {"name": "1"}, {"name": "a b"})
    told: list[tuple[int, int, float]] = []
    found = prompt_stats(
        config, images=8, classes=["a b", "0", 0, "1"], encode=False, progress=lambda *x: told.append(x)
    )
    assert [(c.label, c.name, c.rows) for c in found.classes] == [(0, "cat", 2), (2, "1", 2), (3, "a b", 2)]
    assert told == [(1, 3, 2), (2, 3, 2), (3, 3, 2)]
    assert found.overall.rows == 6


def test_a_single_row_has_no_distance() -> None:
    found = prompt_stats(load_config("minis-emoji", ()), images=3, classes=["0"])
    (only,) = found.classes
    assert (only.rows, only.distance, only.vendi) == (1, None, 1.0)
    assert (found.overall.distance, found.overall.class_distance) == (None, None)
    assert found.overall.vendi == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("images", "classes", "words"),
    [
        (0, (), "images must be at least 1, got 0"),
        (9, ("nobody",), "class 'nobody' is not in label space 'emoji'"),
        (99, ("heart", "16"), "class '16' is not in label space 'emoji'; none is close; labels from 0 to 15 do too"),
        (3, (0, 5), "has no row among the first 3 of the plan; give more images"),
    ],
)
def test_what_cannot_be_measured_is_refused(images: int, classes: tuple[str | int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prompt_stats(load_config("minis-emoji", ()), images=images, classes=classes)


def test_a_wrong_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown field 'colour'"):
        prompt_stats(load_config("minis-emoji", ("prompts.templates=['a {colour} x']",)), encode=False)


def test_without_the_model_only_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("minis-emoji", ABSENT)
    with pytest.raises(DataError, match=r"/nowhere/sd does not exist.*; or count without a model: --no-encode"):
        prompt_stats(config, classes=["tench"])
    with pytest.raises(InputError, match=r"'cuda:99' cannot be used here.*--no-encode"):
        prompt_stats(load_config("minis-emoji", ("sampling.device=cuda:99",)))
    monkeypatch.setattr(TextSpace, "load", lambda config: pytest.fail("no model is needed"))
    found = prompt_stats(config, images=4000, classes=["tench", "goldfish"], encode=False)
    assert [(c.name, c.rows, c.distinct, c.vendi, c.tokens) for c in found.classes] == [
        ("tench", 4, 4, None, None), ("goldfish", 4, 4, None, None),
    ]  # fmt: skip
    assert (found.limit, found.overall.vendi, found.overall.tokens) == (None, None, None)


def _command(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(stats)
    with restored():
        answer = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert answer.exit_code == 0
    return answer.stdout


def test_the_command_prints_json(templates: PromptStats) -> None:
    out = json.loads(_command("minis-emoji", "--images", "256", "--json"))
    found = PromptStats.model_validate(out)
    assert [c.name for c in found.classes] == [c.name for c in templates.classes]
    assert found.overall.distinct == templates.overall.distinct
    assert found.overall.vendi == pytest.approx(templates.overall.vendi, rel=1e-5)


def test_the_command_prints_a_table() -> None:
    out = _command("minis-emoji", "--classes", "heart, 3", *(word for s in BANK for word in ("--set", s)))
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [["class", "rows"], ["heart", "64"], ["bird", "64"]]
    assert "the first 1024 of 2880, at most 64 of a class; --images for more" in out
    assert "distinct prompts   128 of 128" in out
    assert "0 rows exceed the encoder's 24" in out
    assert "Vendi score" in out


def test_the_command_shows_the_twenty_worst() -> None:
    out = _command("minis-emoji", "--no-encode", "--images", "3000", *(word for s in ABSENT for word in ("--set", s)))
    assert out.startswith("the 20 lowest numbers of distinct prompts of 1000 classes\n")
    assert len([line for line in out.splitlines() if line.endswith(" -")]) == 20
    assert "Vendi" not in out
    assert "3000; the run has 2880" in out


def test_coverage_is_said_to_pick_other_prompts() -> None:
    picks = (*BANK, "prompts.select=coverage")
    assert prompt_stats(load_config("minis-emoji", picks), images=16, encode=False).picked
    words = [word for s in picks for word in ("--set", s)]
    assert "a run picks other prompts than these" in _command("minis-emoji", "--no-encode", "--images", "16", *words)
