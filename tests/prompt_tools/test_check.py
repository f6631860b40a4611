"""What a check makes: pairs of senses, verdicts counted by hand, nothing made twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stub import stub_config
from prism_fast.config import RunConfig, assign
from prism_fast.dataset.record import read_record
from prism_fast.dataset.shard import Shard
from prism_fast.errors import InputError
from prism_fast.evaluation.accuracy import wilson_interval
from prism_fast.labels.load import load_label_space
from prism_fast.prompt_tools.checking.jobs import Senses
from prism_fast.prompt_tools.checking.verdict import Checked
from prism_fast.prompts.source import prompts_of
from prism_fast.workers import leases
from tests.prompt_tools.checks import Believer, bank_config, check, files, write_bank


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(leases, "POLL_S", 0.001)
    return bank_config(tmp_path)


@pytest.fixture
def undisturbed(config: RunConfig, tmp_path: Path) -> dict[str, bytes]:
    check(config, tmp_path / "undisturbed")
    return files(tmp_path / "undisturbed")


def test_senses_are_compared_in_pairs(config: RunConfig) -> None:
    """The same noise, the same choices, the same words but for the sense; the sense in use makes the plan's prompts."""
    space = load_label_space(config.labels)
    job, plan = Senses(config, space).job(2, 4), prompts_of(config.prompts, space, config.seed)
    assert job.senses == ("programming <b>language</b> of cat owners", "deep red stone", "plain stone")
    by_sense = [job.rows[start : start + 4] for start in (0, 4, 8)]
    for rows, sense in zip(by_sense, job.senses, strict=True):
        assert [row.index for row in rows] == [2 * 2**20 + turn for turn in range(4)]
        for row, own, turn in zip(rows, by_sense[0], range(4), strict=True):
            assert f", the {sense}" in row.prompt
            assert row.prompt.replace(sense, job.senses[0]) == own.prompt == plan.row(0, 2, turn).prompt
    assert job.choices == tuple(plan.choices(2, turn) for turn in range(4))


def test_the_verdict_is_the_teachers(config: RunConfig, tmp_path: Path) -> None:
    result = check(config, tmp_path / "out").checked
    cat, dog, red = result.classes
    assert [(s.agreed.confirmed, s.agreed.n) for s in (*cat.senses, *dog.senses, *red.senses)] == [
        (4, 4), (0, 4), (4, 4), (0, 4), (4, 4), (0, 4),
    ]  # fmt: skip
    right, wrong, unseen = cat.senses[0], cat.senses[1], red.senses[2]
    assert right.probability == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=1e-6)
    assert wrong.probability == pytest.approx(1 / (np.exp(2) + 2), abs=1e-6)
    assert [(seen.class_name, seen.n, seen.share) for seen in wrong.saw] == [("dog", 4, 1.0)]
    assert unseen.probability == pytest.approx(1 / 3, abs=1e-6)
    assert unseen.never
    assert [s.sense for s in result.never] == ["barking dog", red.senses[0].sense, "plain stone"]
    assert (result.agreed.confirmed, result.agreed.n, result.quarantined) == (12, 24, 0)
    assert (result.agreed.low, result.agreed.high) == wilson_interval(12, 24)
    (better,) = result.better
    assert (better.class_name, better.alternative.sense) == ("red", "deep red stone")
    assert (better.only_sense, better.only_alternative) == (0, 4)
    assert Checked.model_validate_json((tmp_path / "out" / "check.json").read_bytes()) == result


def test_choices_are_counted_over_classes_and_by_class(config: RunConfig, tmp_path: Path) -> None:
    """Against a count by hand of the very images: nothing is seen of photographs, nor on a sofa."""
    generator = Believer(config, blind=("a photo of", "on a sofa"))
    result = check(config, tmp_path / "out", generator, images=12).checked
    space, counted = load_label_space(config.labels), dict[tuple[int | None, str, str], list[int]]()
    senses = Senses(config, space)
    for label in range(3):
        job = senses.job(label, 12)
        said = {sample.index: int(sample.logits.argmax()) for sample in shard(tmp_path / "out", label).samples()}
        axes = [dict.fromkeys(("medium", "count", "view", "light"), "") | dict(choice) for choice in job.choices]
        for place in range(len(job.rows)):
            for axis, value in axes[place % 12].items():
                owner = label if axis in ("sort", "scene") else None
                tally = counted.setdefault((owner, axis, value), [0, 0])
                tally[0] += said[place] == label
                tally[1] += 1
    found: dict[tuple[int | None, str, str], list[int]]
    found = {(None, one.axis, one.value): [one.agreed.confirmed, one.agreed.n] for one in result.axes}
    for verdict in result.classes:
        found |= {(verdict.label, one.axis, one.value): [one.agreed.confirmed, one.agreed.n] for one in verdict.choices}
    assert found == counted
    assert counted[0, "scene", "on a sofa"][1] > 0
    assert [one.agreed.agreement for one in result.axes] == sorted(one.agreed.agreement or 0 for one in result.axes)
    for verdict in result.classes:
        shares = [one.agreed.agreement or 0 for one in verdict.choices]
        assert shares == sorted(shares)


def shard(out: Path, label: int) -> Shard:
    return Shard(out / "classes", read_record(out / "classes" / f"{label:06d}.json"))


def test_templates_have_one_sense(tmp_path: Path) -> None:
    config = stub_config(tmp_path, prompts={"templates": ["{style} {content}"], "styles": ["big", "small"]})
    result = check(config, tmp_path / "out").checked
    assert [[s.sense for s in c.senses] for c in result.classes] == [["cat"], ["dog"], ["red"]]
    assert (result.better, result.never) == ((), ())
    assert [(a.axis, a.value, a.agreed.n) for a in result.axes] == [("style", "big", 6), ("style", "small", 6)]
    assert [(one.axis, one.value) for one in result.classes[1].choices] == [("content", "dog")]


def test_images_are_a_shard_a_class_that_says_what_they_are(config: RunConfig, tmp_path: Path) -> None:
    check(config, tmp_path / "out", classes=["red"])
    assert sorted(path.name for path in (tmp_path / "out" / "classes").iterdir()) == [
        "000002.idx", "000002.json", "000002.tar",
    ]  # fmt: skip
    shard(tmp_path / "out", 2).verify()
    shard(tmp_path / "out", 2).check()
    samples = list(shard(tmp_path / "out", 2).samples())
    assert [sample.index for sample in samples] == list(range(12))
    last = samples[11].meta
    assert (last["index"], last["sense"], last["choices"]["sort"]) == (2 * 2**20 + 3, "plain stone", "ruby")


def test_quarantined_images_are_counted_and_left_out(config: RunConfig, tmp_path: Path) -> None:
    """Two senses share an index: which of them was lost is told by its prompt."""
    job = Senses(config, load_label_space(config.labels)).job(0, 4)
    lost = {job.rows[1].prompt, *(row.prompt for row in job.rows[4:])}
    out, generator = tmp_path / "out", Believer(config, lost)
    result = check(config, out, generator, classes=["cat"]).checked
    first, second = result.classes[0].senses
    assert (first.agreed.n, first.quarantined, first.agreed.confirmed) == (3, 1, 3)
    assert (second.agreed.n, second.quarantined, second.agreed.agreement, second.probability) == (0, 4, None, None)
    assert (second.never, result.classes[0].best, result.quarantined) == (False, 0, 5)
    assert read_record(out / "classes" / "000000.json").quarantined == (1, 4, 5, 6, 7)
    assert check(config, out, classes=["cat"]).found == 1
    page = (out / "check.html").read_text()
    assert page.count('<div class="none">quarantined</div>') == 5
    everything = {row.prompt for row in job.rows}
    nothing = check(config, tmp_path / "none", Believer(config, everything), classes=["cat"]).checked
    assert (nothing.agreed.n, nothing.agreed.agreement, nothing.axes) == (0, None, ())
    assert check(config, tmp_path / "none", classes=["cat"]).found == 1


def test_the_prompt_tells_which_sense_was_lost(config: RunConfig, tmp_path: Path) -> None:
    job = Senses(config, load_label_space(config.labels)).job(0, 1)
    generator = Believer(config, {job.rows[0].prompt})
    first, second = check(config, tmp_path / "out", generator, classes=["cat"], images=1).checked.classes[0].senses
    assert (first.quarantined, second.quarantined) == (1, 0)
    assert [(seen.class_name, seen.n) for seen in second.saw] == [("dog", 1)]


def test_nothing_is_made_twice(config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """A lease that a killed process has left does not stay."""
    told, again = list[tuple[int, int]](), Believer(config)
    (tmp_path / "undisturbed" / "classes" / "000001.lease").write_text("")
    found = check(
        config, tmp_path / "undisturbed", again, progress=lambda done, total, rate: told.append((done, total))
    )
    assert (found.made, found.found, again.rows, told) == (0, 3, [], [(24, 24)])
    assert files(tmp_path / "undisturbed") == undisturbed


def test_a_part_of_the_classes_is_taken_over_by_a_check_of_all(
    config: RunConfig, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    part = check(config, tmp_path / "out", classes=[1, "red"])
    assert [verdict.name for verdict in part.checked.classes] == ["dog", "red"]
    whole = check(config, tmp_path / "out")
    assert (whole.made, whole.found) == (1, 2)
    assert files(tmp_path / "out") == undisturbed


def test_only_the_class_whose_sense_was_edited_is_made_again(config: RunConfig, tmp_path: Path) -> None:
    """Also in the process that has read the bank before."""
    out = tmp_path / "out"
    check(config, out)
    before = files(out)
    write_bank(tmp_path, dog={"sense": "wolf-like dog"})
    generator = Believer(config)
    found = check(config, out, generator)
    assert (found.made, found.found, {row.label for row in generator.rows}) == (1, 2, {1})
    assert found.checked.classes[1].senses[0].sense == "wolf-like dog"
    changed = {name for name, data in files(out).items() if data != before[name]}
    assert {name for name in changed if name.startswith("classes/")} == {
        f"classes/000001.{ext}" for ext in ("tar", "json", "idx")
    }
    assert files(out).keys() == before.keys()


@pytest.mark.parametrize("changes", [{"variants": ["young hound"]}, {"confusions": ["wolf"]}, {"name": "puppy"}])
def test_every_word_of_a_prompt_counts(config: RunConfig, tmp_path: Path, changes: dict[str, object]) -> None:
    """Of the negative prompt, too."""
    config = assign(config, {"prompts.avoid_confusions": True})
    check(config, tmp_path / "out")
    write_bank(tmp_path, dog=changes)
    found = check(config, tmp_path / "out")
    assert (found.made, found.found) == (1, 2)


@pytest.mark.parametrize("values", [{"seed": 1}, {"sampling.steps": 3}, {"sampling.batch_size": 2}])
def test_other_settings_are_another_check(config: RunConfig, tmp_path: Path, values: dict[str, object]) -> None:
    check(config, tmp_path / "out")
    assert check(assign(config, values), tmp_path / "out").made == 3
    assert check(assign(config, {"launch.pipeline_depth": 2, "guidance.scale": 1.0}), tmp_path / "out").made == 3


def test_classes_that_are_not_there(config: RunConfig, tmp_path: Path) -> None:
    for given, said in {
        "cats": "class 'cats' is not in label space 'pets'; close ones are 'cat'; labels from 0 to 2 do too",
        "Re": "class 'Re' is not in label space 'pets'; close ones are 'red'; labels from 0 to 2 do too",
        "3": "class '3' is not in label space 'pets'; none is close; labels from 0 to 2 do too",
        "": "class '' is not in label space 'pets'; none is close; labels from 0 to 2 do too",
    }.items():
        with pytest.raises(InputError) as caught:
            check(config, tmp_path / "out", classes=[given])
        assert str(caught.value) == said
    with pytest.raises(InputError, match="images must be from 1 to 1048576, got 0"):
        check(config, tmp_path / "out", images=0)
    assert not (tmp_path / "out").exists()


def test_the_result_says_its_own_hash(config: RunConfig, tmp_path: Path) -> None:
    check(config, tmp_path / "out", classes=["dog"])
    document = json.loads((tmp_path / "out" / "check.json").read_bytes())
    document["classes"][0]["senses"][0]["agreed"]["confirmed"] = 3
    with pytest.raises(ValueError, match="its own hash is another one"):
        Checked.model_validate_json(json.dumps(document))
