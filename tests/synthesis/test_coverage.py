"""Prompts that are picked to cover: farthest first, with the styles' shares kept, the same in a longer run."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from prism_fast.config import RunConfig, assign, load_config
from prism_fast.dataset.plan import build_plan
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.errors import ConfigError, DataError, InputError
from prism_fast.labels.load import load_label_space
from prism_fast.operations.extend import extend
from prism_fast.operations.merge import merge
from prism_fast.operations.verify import verify
from prism_fast.prompts.source import prompts_of
from prism_fast.synthesis.coverage import FarthestFirst, drawn, farthest_first, order_of
from prism_fast.synthesis.text_space import TextSpace
from tests.runs import assert_same_run, contents
from tests.stubbed import synthesize

EMOJI = ("prompts.bank=bundled", "prompts.axes=emoji", "prompts.templates=[]", "prompts.select=coverage")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """Forty prompts, of 16 classes, in shards of eight."""
    changes = ("prompts.pool=12", "synthesis.images=40", "synthesis.shard_size=8", "engines.backend=eager")
    return load_config("minis-emoji", (*EMOJI, *changes))


@pytest.fixture(scope="module")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of it; read only."""
    out = tmp_path_factory.mktemp("finished") / "run"
    synthesize(config, out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """The run of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def by_hand(vectors: np.ndarray, groups: list[str]) -> list[int]:
    """The definition, in float64: of the group whose turn it is, the one whose nearest pick is farthest."""
    picks = [0]
    for group in groups[1:]:
        left = [i for i in range(len(groups)) if i not in picks and groups[i] == group]
        picks.append(max(left, key=lambda i: min(1 - float(vectors[i] @ vectors[j]) for j in picks)))
    return picks


@pytest.mark.parametrize("groups", [["a"] * 30, ["a", "b", "a", "a", "c"] * 6])
def test_it_is_the_traversal_by_its_definition(groups: list[str]) -> None:
    vectors = normalize(torch.randn(30, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)
    found = farthest_first(vectors.float(), groups)
    assert found == by_hand(vectors.numpy(), groups)
    assert [groups[place] for place in found] == groups


def test_the_first_picks_lie_farther_apart_than_the_first_prompts() -> None:
    vectors = normalize(torch.randn(400, 8, generator=torch.Generator().manual_seed(2)), dim=1)

    def radius(places: list[int]) -> float:
        return float((1 - vectors @ vectors[places].T).min(1).values.max())

    assert radius(farthest_first(vectors, ["a"] * 400)[:40]) < 0.8 * radius(list(range(40)))


def test_equal_vectors_are_each_picked_once() -> None:
    assert farthest_first(torch.ones(5, 1), ["a"] * 5) == [0, 1, 2, 3, 4]


def test_every_turn_of_a_pool_comes_once_and_then_the_next_pool(config: RunConfig) -> None:
    prompts = prompts_of(config.prompts, load_label_space("emoji"), config.seed)
    order = FarthestFirst(prompts, TextSpace.load(config))(3)
    first, second = ([next(order) for _ in range(12)] for _ in range(2))
    assert (sorted(first), sorted(second)) == ([*range(12)], [*range(12, 24)])
    assert first != sorted(first)
    styles = [Counter(prompts.row(0, 3, turn).style for turn in turns) for turns in (first[:7], range(7))]
    assert styles[0] == styles[1]


def test_what_was_picked_is_a_file_of_the_run(config: RunConfig, finished: Path) -> None:
    directory = RunDirectory(finished)
    (decision,) = directory.decisions()
    assert (decision.start, decision.stop, decision.file) == (0, 40, "draws-000000000.parquet")
    prompts = prompts_of(config.prompts, load_label_space("emoji"), config.seed)
    wanted = next(iter(order_of(config)(2)))
    assert directory.plan().rows(2, 1) == [prompts.row(2, 2, wanted)]
    assert verify(finished).problems == ()
    assert directory.plan().rows(0, 40) == build_plan(config, 40, drawn(config))
    assert directory.plan().rows(0, 40) != build_plan(config, 40)


def test_a_longer_run_begins_as_a_shorter_one(config: RunConfig, run: Path) -> None:
    long = assign(config, {"synthesis.images": 120})
    extend(run, 120)
    synthesize(long, run)
    assert RunDirectory(run).plan().rows(0, 120) == build_plan(long, 120, drawn(long))
    assert verify(run).problems == ()


def test_a_run_that_goes_on_takes_what_was_decided(config: RunConfig, run: Path) -> None:
    wanted = contents(run)
    for name in ("plan.parquet", "shards/000001.json", "shards/000003.tar", "shards/000003.json"):
        (run / name).unlink()
    synthesize(config, run)
    assert contents(run) == wanted


def test_what_another_run_left_is_not_taken_for_this_ones(config: RunConfig, finished: Path, tmp_path: Path) -> None:
    """A worker that is killed before there is a run leaves what it decided, without an owner."""
    synthesize(assign(config, {"seed": 5}), tmp_path / "other")
    left = tmp_path / "left"
    left.mkdir()
    (left / "draws-000000000.parquet").write_bytes((tmp_path / "other" / "draws-000000000.parquet").read_bytes())
    synthesize(config, left)
    assert_same_run(left, finished)


@pytest.mark.parametrize("damage", ["flip", "lose"])
def test_a_damaged_decision_is_named(config: RunConfig, run: Path, damage: str) -> None:
    file = run / "draws-000000000.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data) if damage == "flip" else file.unlink()
    problems = verify(run).problems
    assert len(problems) == 1
    assert "restore it from a copy" in problems[0]
    (run / "shards" / "000001.json").unlink()
    with pytest.raises(DataError, match=r"draws-000000000\.parquet is (damaged|missing).*restore it from a copy"):
        synthesize(config, run)


def test_parts_merge_if_they_were_given_the_same_prompts(run: Path, finished: Path, tmp_path: Path) -> None:
    assert merge([run, finished], tmp_path / "out").shards == 5
    assert_same_run(tmp_path / "out", finished)
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    extend(run, 80)
    extend(other, 60)
    extend(other, 80)
    with pytest.raises(InputError, match=r"gave its rows other prompts than .*; they do not merge"):
        merge([run, other], tmp_path / "merged")


def test_templates_have_nothing_to_pick_from() -> None:
    with pytest.raises(ConfigError, match="select coverage picks from a bank's prompts; name a bank"):
        load_config("minis-emoji", ("prompts.select=coverage",))


def test_without_it_a_runs_hash_is_what_it_was() -> None:
    plain = load_config("minis-emoji", EMOJI[:-1])
    assert plain.run_hash() == load_config("minis-emoji", (*EMOJI[:-1], "prompts.pool=100")).run_hash()
    assert plain.run_hash() != load_config("minis-emoji", EMOJI).run_hash()
    assert (
        load_config("minis-emoji", EMOJI).run_hash()
        != load_config("minis-emoji", (*EMOJI, "prompts.pool=9")).run_hash()
    )
