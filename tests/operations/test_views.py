"""``prism-fast views``: labels of views beside the shards of a finished run, whole, once, and of these shards."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

import prism_fast
from prism_fast.cli.main import app
from prism_fast.config import RunConfig, assign
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.view_labels import open_view_labels
from prism_fast.errors import ConfigError, DataError, InputError, RunError
from prism_fast.models.classifier import load_classifier
from prism_fast.operations import views as module
from prism_fast.operations.extend import extend
from prism_fast.operations.merge import merge
from prism_fast.operations.repair import carry_out, examine
from prism_fast.operations.verify import verify
from prism_fast.operations.views import label_views
from prism_fast.synthesis.views import ViewLabeller
from prism_fast.workers.leases import Leases
from prism_fast.workers.synthesize import synthesize
from tests.cli.conftest import restored
from tests.damage import cut, flip
from tests.synthesis.test_views import VIEWS, by_a_fresh_pass, stored, with_telling_teacher

FILES = ("000000.views", "000001.views", "000002.views")


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "views").iterdir())}


def test_labels_are_those_of_a_fresh_pass_on_the_stored_pixels(tmp_path: Path, config: RunConfig) -> None:
    given, run = with_telling_teacher(config, tmp_path), tmp_path / "run"
    synthesize(assign(given, {"synthesis.image_format": "jpg"}), run)
    made = label_views(run, VIEWS)
    assert (made.count, made.shards, made.made, made.with_samples) == (VIEWS, 3, 3, False)
    assert tuple(files(run)) == FILES
    teacher = load_classifier(given.models.teacher)
    for shard in ShardSet.discover(run).shards:
        wanted = by_a_fresh_pass(run, shard, teacher, 32)
        np.testing.assert_allclose(stored(run, shard), wanted, atol=1e-2)
        assert np.abs(wanted[:, 1:] - wanted[:, :1]).max() > 0.1
    assert verify(run).problems == ()


def test_a_file_says_what_it_is_in_a_form_that_others_read(run: Path) -> None:
    label_views(run, 2)
    tensors = load_file(run / "views" / "000001.views")
    assert tensors["index"].tolist() == [4, 5, 6, 7]
    assert tensors["views"].shape == (4, 2, 6)
    assert tensors["views"].dtype == np.uint8
    labels = open_view_labels(ShardSet.discover(run))
    read = tensors["views"].view("<f2").reshape(4, 2, 3)
    shard = ShardSet.discover(run).shards[1]
    assert np.array_equal(labels.logits(shard, np.array([6]), np.array([1])), read[2:3, 1].astype(np.float32))


def test_what_is_there_is_not_made_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label_views(run, 3)
    before = files(run)
    monkeypatch.setattr(ViewLabeller, "label", None)
    assert label_views(run, 3).made == 0
    assert label_views(run, 2).made == 0
    assert files(run) == before


def test_more_views_later_are_the_bytes_of_all_at_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    label_views(other, 5)
    label_views(run, 2)
    seen: list[int] = []
    label = ViewLabeller.label

    def watched(self: ViewLabeller, indices: list[int], images: torch.Tensor, turns: range) -> tuple[torch.Tensor, ...]:
        seen.extend(turns)
        return label(self, indices, images, turns)

    monkeypatch.setattr(ViewLabeller, "label", watched)
    assert label_views(run, 5).made == 3
    assert files(run) == files(other)
    assert sorted(set(seen)) == [2, 3, 4]


def test_batches_are_cut_by_the_shard(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    label_views(run, 2)
    other = Path(shutil.copytree(run, tmp_path / "other"))
    (other / "views" / "000001.views").unlink()
    assert label_views(other, 2).made == 1
    assert files(run) == files(other)


def test_killed_anywhere_it_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label, calls = ViewLabeller.label, iter(range(100))

    def dying(self: ViewLabeller, indices: list[int], images: torch.Tensor, turns: range) -> tuple[torch.Tensor, ...]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return label(self, indices, images, turns)

    monkeypatch.setattr(ViewLabeller, "label", dying)
    with pytest.raises(KeyboardInterrupt):
        label_views(run, 2)
    assert tuple(files(run)) == FILES[:2]
    assert verify(run).problems == ()
    with pytest.raises(DataError, match=r"000002\.views is missing; make it with 'prism-fast views .* --count V'"):
        open_view_labels(ShardSet.discover(run))
    assert label_views(run, 2).made == 1


def test_a_file_that_another_one_finished_meanwhile_is_left(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the lease."""
    take = Leases.take

    def late(self: Leases, name: str) -> bool:
        monkeypatch.setattr(Leases, "take", take)
        assert label_views(run, 2).made == 3
        return take(self, name)

    monkeypatch.setattr(Leases, "take", late)
    assert label_views(run, 2).made == 0


def test_several_at_once_share_the_shards_and_do_no_harm(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prism_fast.workers.leases.POLL_S", 0.01)
    other = Path(shutil.copytree(run, tmp_path / "other"))
    label_views(other, 2)
    made: list[int] = []
    together = [threading.Thread(target=lambda: made.append(label_views(run, 2).made)) for _ in range(3)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert len(made) == 3
    assert sum(made) == 3
    assert files(run) == files(other)


@pytest.mark.parametrize("damage", [cut, flip])
def test_damaged_files_are_named_removed_and_made_again(run: Path, damage: object) -> None:
    label_views(run, 2)
    before, path = files(run), run / "views" / "000001.views"
    damage(path)  # type: ignore[operator]
    (problem,) = verify(run).problems
    assert "000001.views is damaged" in problem
    with pytest.raises(DataError, match=r"000001\.views is damaged"):
        open_view_labels(ShardSet.discover(run))
    found = examine(run)
    assert [(r.path.name, found.images) for r in found.removals] == [("000001.views", 0)]
    carry_out(found)
    assert label_views(run, 2).made == 1
    assert files(run) == before


def test_labels_of_a_shard_that_was_made_again_are_stale(config: RunConfig, run: Path) -> None:
    label_views(run, 2)
    extend(run, 12)
    assert [p for p in verify(run).problems if "views" in p] == []  # its last shard is missing, nothing is stale yet
    synthesize(assign(config, {"synthesis.images": 12}), run)
    (problem,) = verify(run).problems
    assert "000002.views is of a shard 000002 that was made again since; delete it" in problem
    with pytest.raises(DataError, match="made again since; make it with 'prism-fast views"):
        open_view_labels(ShardSet.discover(run))
    assert label_views(run, 2).made == 1
    assert verify(run).problems == ()


def test_a_growing_run_is_labelled_as_far_as_it_is(run: Path) -> None:
    for extension in ("tar", "idx", "json"):
        (run / "shards" / f"000001.{extension}").unlink()
    assert (label_views(run, 1).made, tuple(files(run))) == (2, (FILES[0], FILES[2]))
    synthesize(RunDirectory(run).config(), run)
    assert (label_views(run, 1).made, tuple(files(run))) == (1, FILES)


def test_what_the_run_stores_with_its_samples_is_not_made_again(config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    synthesize(assign(config, {"views.count": 2}), run)
    found = label_views(run, 2)
    assert (found.count, found.made, found.with_samples) == (2, 0, True)
    assert not (run / "views").exists()
    assert label_views(run, 3).made == 3
    labels = open_view_labels(ShardSet.discover(run))
    assert labels.count == 3
    assert verify(run).problems == ()


def test_another_rule_is_refused_while_labels_of_one_are_there(run: Path) -> None:
    label_views(run, 1, {"views.crop_scale": [0.3, 1.0], "views.image_size": 20})
    assert open_view_labels(ShardSet.discover(run)).rule.crop_scale == (0.3, 1.0)
    assert open_view_labels(ShardSet.discover(run)).image_size == 20
    with pytest.raises(InputError, match=r"of another rule \(crop_scale \(0.3, 1.0\), image_size 20\)"):
        label_views(run, 1)
    shutil.rmtree(run / "views")
    assert label_views(run, 1).made == 3


def test_only_views_can_differ_from_the_run(run: Path) -> None:
    for changes in ({"seed": 1}, {"views.count": 3}):
        with pytest.raises(ConfigError, match=r"only views\.\* can differ"):
            label_views(run, 1, changes)
    with pytest.raises(InputError, match="--count must be 1 or more"):
        label_views(run, 0)


def test_logits_that_half_precision_does_not_hold_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = ViewLabeller.label
    monkeypatch.setattr(ViewLabeller, "label", lambda self, *given: tuple(x.mul(1e9) for x in label(self, *given)))
    with pytest.raises(RunError, match="view of sample 0 are not finite in half precision"):
        label_views(run, 1)


def test_merged_runs_keep_the_most_views_of_each_shard(run: Path, tmp_path: Path) -> None:
    one, other = run, Path(shutil.copytree(run, tmp_path / "other"))
    for folder, lacks in ((one, "000000"), (other, "000002")):
        (folder / "shards" / f"{lacks}.json").unlink()
    label_views(one, 2)
    label_views(other, 3)
    out = tmp_path / "merged"
    assert merge([one, other], out).shards == 3
    assert [len(load_file(out / "views" / name)["views"][0]) for name in FILES] == [3, 3, 2]
    assert verify(out).problems == ()
    assert open_view_labels(ShardSet.discover(out)).count == 2
    shutil.rmtree(other / "views")
    label_views(other, 1, {"views.flip": False})
    with pytest.raises(InputError, match="holds views of another rule than"):
        merge([one, other], tmp_path / "never")


def test_the_command_says_what_it_did(run: Path) -> None:
    with restored():
        done = CliRunner().invoke(app, ["views", str(run), "--count", "2", "--set", "views.flip=false", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["count"], found["made"], found["shards"], found["with_samples"]) == (2, 3, 3, False)
    with restored():
        made = prism_fast.label_views(run, 2, {"views.flip": False})
    assert made.made == 0
    assert open_view_labels(ShardSet.discover(run)).rule.flip is False
