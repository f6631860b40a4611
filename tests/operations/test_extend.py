"""A run that is made longer is the run that would have been made at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from prism_fast.config import RunConfig
from prism_fast.errors import InputError
from prism_fast.operations import extend as module
from prism_fast.operations.extend import extend
from prism_fast.operations.merge import merge
from prism_fast.operations.verify import verify
from prism_fast.storage.files import replace
from prism_fast.workers.synthesize import synthesize
from tests.damage import edit
from tests.runs import assert_same_run


def longer(config: RunConfig, images: int) -> RunConfig:
    return config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"images": images})})


@pytest.fixture(scope="module")
def at_once(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen images in shards of four, four, four and three."""
    out = tmp_path_factory.mktemp("at_once") / "run"
    synthesize(longer(config, 15), out)
    return out


def times(run: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (run / "shards").iterdir() if p.stem in ("000000", "000001")}


def test_it_is_the_run_that_would_have_been_made_at_once(config: RunConfig, run: Path, at_once: Path) -> None:
    before = times(run)
    made = extend(run, 15)
    assert (made.images_before, made.images, made.shards, made.shards_to_make, made.retired) == (10, 15, 4, 2, 2)
    assert len(verify(run).problems) == 2
    assert synthesize(longer(config, 15), run).made_now == 7
    assert times(run) == before
    assert_same_run(run, at_once)
    assert verify(run).problems == ()


def test_full_shards_alone_are_all_kept(config: RunConfig, tmp_path: Path, at_once: Path) -> None:
    synthesize(longer(config, 8), tmp_path / "run")
    made = extend(tmp_path / "run", 15)
    assert (made.shards_to_make, made.retired) == (2, None)
    synthesize(longer(config, 15), tmp_path / "run")
    assert_same_run(tmp_path / "run", at_once)


def test_an_unfinished_run_can_be_extended(config: RunConfig, run: Path, at_once: Path) -> None:
    for shard in ("000001", "000002"):
        (run / "shards" / f"{shard}.json").unlink()
    made = extend(run, 15)
    assert (made.shards_to_make, made.retired) == (3, None)
    synthesize(longer(config, 15), run)
    assert_same_run(run, at_once)


def test_the_same_length_changes_nothing(run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert extend(run, 10).shards_to_make == 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


@pytest.mark.parametrize("survived", range(7))
def test_killed_at_any_moment_the_same_call_goes_on(
    config: RunConfig, run: Path, at_once: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Dies before a change: of record, plan, manifest, card, run.json, what that was staged as, the new plan."""
    calls = 0

    def counted(function: object) -> object:
        def wrapped(*args: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls > survived:
                raise KeyboardInterrupt
            return function(*args, **options)  # type: ignore[operator]

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr(module, "replace", counted(replace))
        patch.setattr("prism_fast.dataset.run_directory.write_plan", counted(lambda *_, **__: None))
        with pytest.raises(KeyboardInterrupt):
            extend(run, 15)
    for staged in run.glob("*.tmp-*"):  # swept when its process is dead; this one lives
        staged.unlink()
    held = json.loads((run / "run.json").read_text())["config"]["synthesis"]["images"]
    if survived < 5:  # still a run of ten images, that can be made as such
        assert held == 10
        synthesize(config, run)
        assert verify(run).problems == ()
    extend(run, 15)
    synthesize(longer(config, 15), run)
    assert_same_run(run, at_once)


def test_a_run_does_not_shrink(run: Path) -> None:
    with pytest.raises(InputError, match=r"is a run of 10 images, which only grows; --images 9 is fewer"):
        extend(run, 9)


def test_another_label_file_is_refused(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    edit(run / "run.json", config={**facts["config"], "labels": "emoji"})
    with pytest.raises(InputError, match="was begun with another label file"):
        extend(run, 15)
    assert (run / "shards" / "000002.json").exists()


def test_synthesize_does_not_change_the_length_by_itself(config: RunConfig, run: Path) -> None:
    for images in (9, 15):
        with pytest.raises(InputError, match=rf"is a run of 10 images, but {images} are asked for; 'prism-fast extend"):
            synthesize(longer(config, images), run)


def test_runs_of_two_lengths_do_not_merge(config: RunConfig, run: Path, at_once: Path, tmp_path: Path) -> None:
    for parts in ([run, at_once], [at_once, run]):
        with pytest.raises(InputError, match=rf"'prism-fast extend {run} --images 15' first"):
            merge(parts, tmp_path / "out")
    extend(run, 15)
    assert merge([run, at_once], tmp_path / "out").shards == 4
    assert os.path.exists(tmp_path / "out" / "manifest.parquet")
    assert_same_run(tmp_path / "out", at_once)
