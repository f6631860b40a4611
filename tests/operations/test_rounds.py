"""An adaptive round: who gets the next images, and that the run stays exact."""

from __future__ import annotations

from collections import Counter
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.stub import Stub, stub_config
from prism_fast.config import RunConfig, assign
from prism_fast.dataset.draws import Draws, read_reason
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import InputError
from prism_fast.labels.load import load_label_space
from prism_fast.operations import decide as deciding
from prism_fast.operations import extend as module
from prism_fast.operations.decide import Aim
from prism_fast.operations.extend import extend
from prism_fast.operations.needs import Lacks, _distances, measure
from prism_fast.operations.rounds import HOPELESS, MOST, allot, choice_weights, class_needs, drawn_turns, quotas
from prism_fast.operations.stats import stats
from prism_fast.operations.verify import verify
from prism_fast.prompts.order import in_turn
from prism_fast.prompts.row import PlanRow
from prism_fast.prompts.source import prompts_of
from prism_fast.synthesis.synthesizer import Made
from tests.runs import assert_same_run, contents
from tests.stubbed import synthesize

AGREEMENT = Aim("agreement")


class Blind(Stub):
    """Its teacher takes every dog for a cat, and what is asleep."""

    def finish(self, rows: Any, sampled: None) -> Made:
        made = super().finish(rows, sampled)
        return Made(tuple(map(self._seen, made.samples, rows)), ())

    @staticmethod
    def _seen(sample: Any, row: PlanRow) -> Any:
        wrong = row.class_name == "dog" or "asleep" in row.content
        top1 = (row.label + 1) % 3 if wrong else row.label
        return type(sample)(
            sample.index, sample.image, sample.label, sample.logits, {**sample.meta, "teacher_top1": top1}
        )


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Sixty images of three classes, each awake, asleep or fed."""
    prompts = {"templates": ["{content}"], "contents": ["{name} awake", "{name} asleep", "{name} fed"]}
    return stub_config(tmp_path, images=60, shard_size=8, prompts=prompts)


@pytest.fixture
def run(config: RunConfig, tmp_path: Path) -> Path:
    synthesize(config, tmp_path / "run", generator=Blind(config))
    return tmp_path / "run"


def longer(config: RunConfig, images: int) -> RunConfig:
    return assign(config, {"synthesis.images": images})


def make(config: RunConfig, run: Path, images: int) -> None:
    synthesize(longer(config, images), run, generator=Blind(longer(config, images)))


def lacks(labels: list[int], values: list[float]) -> Lacks:
    return Lacks(np.arange(len(labels)), np.array(labels), np.array(values))


def test_a_class_needs_what_its_samples_lack_on_average() -> None:
    found = class_needs(lacks([0, 0, 2, 2], [1.0, 0.0, 1.0, 1.0]), 4)
    assert found.tolist() == [0.5, 0.75, 1.0, 0.75]


@pytest.mark.parametrize(("needs", "wanted"), [([1, 1, 1], [4, 3, 3]), ([0, 0, 0], [4, 3, 3]), ([0, 0, 1], [2, 2, 6])])
def test_half_is_shared_equally_and_half_by_need(needs: list[float], wanted: list[int]) -> None:
    assert quotas(np.array(needs, float), 10).tolist() == wanted


def test_quotas_add_up() -> None:
    needs = np.random.default_rng(0).random(37)
    for images in (1, 36, 37, 1000):
        assert quotas(needs, images).sum() == images


def test_a_choice_weighs_what_it_lacks_against_its_class() -> None:
    made = [{"sort": "a", "style": "x"}] * 4 + [{"sort": "b", "style": "y"}] * 4
    found = choice_weights(made, np.array([1.0] * 4 + [0.0] * 4), hopeless=False)
    assert found == {"sort": {"a": pytest.approx((4 + 4 * 0.5) / 8 / 0.5), "b": pytest.approx(4 * 0.5 / 8 / 0.5)}}


def test_what_is_never_confirmed_is_not_asked_for_more_often() -> None:
    made = [{"sort": "a"}] * HOPELESS + [{"sort": "b"}] * HOPELESS
    values = np.array([1.0] * HOPELESS + [0.0] * HOPELESS)
    assert choice_weights(made, values, hopeless=True)["sort"]["a"] == 1 / MOST
    assert choice_weights(made, values, hopeless=False)["sort"]["a"] > 1
    assert choice_weights(made[1:], values[1:], hopeless=True)["sort"]["a"] > 1


def test_likelier_turns_are_drawn_more_often(config: RunConfig) -> None:
    prompts = prompts_of(config.prompts, load_label_space(config.labels), 0)
    turns = list(islice(count(), 300))
    found = drawn_turns(prompts, 0, turns, {"content": {"cat asleep": MOST}}, 100, (0, 7))
    assert len(set(found)) == 100
    drawn = Counter(prompts.choices(0, turn)["content"] for turn in found)
    assert drawn["cat asleep"] > 2 * drawn["cat awake"]
    assert found == drawn_turns(prompts, 0, turns, {"content": {"cat asleep": MOST}}, 100, (0, 7))
    assert found != drawn_turns(prompts, 0, turns, {"content": {"cat asleep": MOST}}, 100, (0, 8))


def test_no_turn_comes_twice_and_classes_are_mixed(config: RunConfig) -> None:
    prompts = prompts_of(config.prompts, load_label_space(config.labels), 0)
    draws = Draws(3)
    made = allot(lacks([0, 1, 2], [0.0, 1.0, 0.0]), prompts, draws, in_turn, (60, 90), 0, hopeless=True)
    rows = [*draws.rows(0, 60), *zip(made.part.labels.tolist(), made.part.turns.tolist(), strict=True)]
    assert len(set(rows)) == 90
    assert np.bincount(made.part.labels).tolist() == [5, 20, 5]
    assert [need.images for need in made.needs] == [5, 20, 5]
    assert set(made.part.labels[:8].tolist()) == set(made.part.labels[-8:].tolist()) == {0, 1, 2}


def test_images_go_to_the_class_and_the_content_that_is_not_confirmed(config: RunConfig, run: Path) -> None:
    made = extend(run, 120, AGREEMENT)
    assert (made.images_before, made.images) == (60, 120)
    rows = RunDirectory(run).plan().rows(60, 60)
    classes = Counter(row.class_name for row in rows)
    assert classes["dog"] > 1.5 * classes["cat"]
    cats = Counter(row.content for row in rows if row.class_name == "cat")
    assert cats["cat asleep"] > 2 * cats["cat awake"]
    make(config, run, 120)
    assert verify(run).problems == ()
    assert stats(run).images_by_class.max == 20 + classes["dog"]


def test_a_content_that_may_be_learnt_gets_more(config: RunConfig, run: Path) -> None:
    """Six of twenty cats are asleep: too few to give them up."""
    counts = Counter(row.content for row in RunDirectory(run).plan().rows(0, 60) if row.class_name == "red")
    extend(run, 120, AGREEMENT)
    (decision,) = RunDirectory(run).decisions()
    weights = read_reason(run, decision).needs[2].choices["content"]
    assert counts["red asleep"] < HOPELESS
    assert weights["red asleep"] > 1 > weights["red awake"]


def test_the_rows_of_before_stay_and_the_decision_is_exact(config: RunConfig, run: Path, tmp_path: Path) -> None:
    before = RunDirectory(run).plan().rows(0, 60)
    extend(run, 120, AGREEMENT)
    make(config, run, 120)
    assert RunDirectory(run).plan().rows(0, 60) == before
    wanted = contents(run)
    for name in ("000000", "000009", "000014"):
        (run / "shards" / f"{name}.json").unlink()
    (run / "plan.parquet").unlink()
    make(config, run, 120)
    assert contents(run) == wanted


@pytest.mark.parametrize("survived", range(4))
def test_killed_at_any_moment_the_same_call_decides_the_same(
    config: RunConfig, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    other = tmp_path / "other"
    synthesize(config, other, generator=Blind(config))
    extend(other, 100, AGREEMENT)
    make(config, other, 100)
    steps = iter(range(survived))

    def dying(function: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return function(*args, **options)

        return wrapped

    with monkeypatch.context() as patch:
        for where, name in ((deciding, "store_part"), (module, "remove"), (module, "replace")):
            patch.setattr(where, name, dying(getattr(where, name)))
        with pytest.raises(KeyboardInterrupt):
            extend(run, 100, AGREEMENT)
    extend(run, 100, AGREEMENT)
    make(config, run, 100)
    assert_same_run(run, other)


def test_later_images_are_equal_numbers_again(config: RunConfig, run: Path) -> None:
    extend(run, 90, AGREEMENT)
    make(config, run, 90)
    extend(run, 120)
    make(config, run, 120)
    directory = RunDirectory(run)
    assert [decision.towards for decision in directory.decisions()] == ["agreement", "equal numbers"]
    rows = list(directory.draws(3).rows(0, 120))
    assert len(set(rows)) == 120
    assert Counter(label for label, _ in rows[90:]) == {0: 10, 1: 10, 2: 10}
    assert verify(run).problems == ()


def test_the_same_call_again_changes_nothing_and_another_is_refused(run: Path) -> None:
    extend(run, 90, AGREEMENT)
    before = contents(run)
    assert extend(run, 90, AGREEMENT).images_before == 90
    assert contents(run) == before
    with pytest.raises(InputError, match="has 90 images already, none is left to give out; give more --images"):
        extend(run, 90, Aim("coverage"))


def test_a_student_must_be_given_and_be_of_these_classes(run: Path) -> None:
    with pytest.raises(InputError, match="towards student needs one; give --student DIR"):
        extend(run, 90, Aim("student"))
    assert RunDirectory(run).layout().images == 60


def test_images_are_few_where_the_nearest_of_the_class_is_far() -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, 1.5, 0.0, 3.0])
    features = torch.stack([angles.cos(), angles.sin()], 1).numpy()
    found = _distances(features, np.array([0, 0, 0, 0, 1, 2]), 1)
    wanted = 1 - np.cos([0.1, 0.1, 0.1, 1.3])
    assert found[:4] == pytest.approx(wanted, abs=1e-6)
    assert found[4:].tolist() == [0.0, 0.0]


def test_towards_coverage_looks_at_the_images(run: Path, config: RunConfig) -> None:
    """The stub's images are alike, so nothing is sparse; every sample is looked at once."""
    seen: list[tuple[int, int]] = []
    minis = assign(config, {"models.teacher": "minis"})
    found = measure(run, minis, "coverage", None, lambda done, total, _: seen.append((done, total)))
    assert sorted(found.index.tolist()) == [*range(60)]
    assert set(found.value.tolist()) <= {0.0, 1.0}
    assert found.value.mean() <= 0.25
    assert seen == [(60, 60)]
