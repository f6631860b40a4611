"""A worker stores what the teacher says of a sample's first views, of the pixels that a reader of the shard sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.run_directory import RunDirectory
from prism_fast.dataset.shard import Shard
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.dataset.view_labels import open_view_labels
from prism_fast.models.classifier import Classifier, load_classifier, save_classifier
from prism_fast.operations.verify import verify
from prism_fast.synthesis.synthesizer import Synthesizer
from prism_fast.synthesis.views import as_stored
from prism_fast.views.draw import ViewRule, draw_views
from prism_fast.views.render import render_all
from prism_fast.workers.synthesize import synthesize

VIEWS = 3


def with_views(config: RunConfig, **more: object) -> RunConfig:
    return assign(config, {"views.count": VIEWS, "views.image_size": 24, "synthesis.images": 6, **more})


def with_telling_teacher(config: RunConfig, folder: Path) -> RunConfig:
    """The run with a teacher whose logits differ by more than their rounding, from view to view too."""
    teacher = load_classifier(config.models.teacher)
    with torch.no_grad():
        teacher.net.get_classifier().weight.mul_(60)  # type: ignore[operator]
    return assign(config, {"models.teacher": str(save_classifier(teacher.net, teacher.config, folder / "telling"))})


def by_a_fresh_pass(run: Path, shard: Shard, teacher: Classifier, side: int) -> np.ndarray:
    """Logits (n, VIEWS, classes) of the pixels that a loader would cut from the stored images."""
    config = RunDirectory(run).config()
    rule = ViewRule(config.seed, config.views.crop_scale, config.views.flip)
    images = torch.stack([sample.image for sample in shard.samples()])
    indices = np.array([entry.index for entry in shard.entries()])
    size = np.tile(np.array(images.shape[2:], np.int32), (len(images), 1))
    found = []
    for turn in range(VIEWS):
        seen = render_all(images, draw_views(rule, indices, np.full(len(indices), turn), size), side)
        with torch.no_grad():
            found.append(teacher.net(teacher.prepare(seen)).numpy())
    return np.stack(found, 1)


def stored(run: Path, shard: Shard) -> np.ndarray:
    labels = open_view_labels(ShardSet.discover(run))
    indices = np.array([entry.index for entry in shard.entries()])
    each = [labels.logits(shard, indices, np.full(len(indices), turn)) for turn in range(labels.count)]
    return np.stack(each, 1)


@pytest.mark.parametrize(("side", "extension"), [(24, "png"), (16, "png"), (None, "jpg"), (16, "webp")])
def test_labels_are_those_of_a_fresh_pass_on_the_stored_pixels(
    config: RunConfig, tmp_path: Path, side: int | None, extension: str
) -> None:
    """16 is the images' own size, whose views the engine of whole images labels; the teacher's is 32."""
    changed = {"views.image_size": side, "synthesis.image_format": extension, "synthesis.quality": 30}
    given, run = with_views(with_telling_teacher(config, tmp_path), **changed), tmp_path / "run"
    synthesize(given, run)
    assert verify(run).problems == ()
    teacher = load_classifier(given.models.teacher)
    for shard in ShardSet.discover(run).shards:
        wanted = by_a_fresh_pass(run, shard, teacher, side or 32)
        np.testing.assert_allclose(stored(run, shard), wanted, atol=1e-2)
        assert np.abs(wanted[:, 1:] - wanted[:, :1]).max() > 0.1  # a view's labels are not another one's


def test_compressed_pixels_are_other_pixels() -> None:
    """So labels of what was made would be labels of something that no student sees."""
    made = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = RunConfig.model_fields["synthesis"].get_default(call_default_factory=True)
    kept, encoded = as_stored(made, settings)
    assert torch.equal(kept, made)
    assert encoded is None
    seen, data = as_stored(made, settings.model_copy(update={"image_format": "jpg"}))
    assert (seen != made).any()
    assert data is not None
    assert [piece[:2] for piece in data] == [b"\xff\xd8"] * 2


def test_a_run_without_views_is_byte_for_byte_what_it_was(config: RunConfig, finished: Path, tmp_path: Path) -> None:
    synthesize(assign(config, {"views.top_k": 7, "views.crop_scale": [0.1, 0.2]}), tmp_path / "run")
    for name in ("shards/000000.tar", "shards/000000.idx", "shards/000002.tar"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_with_views_only_the_views_are_added(config: RunConfig, tmp_path: Path, extension: str) -> None:
    """Also where the image was encoded before, for its views."""
    plain = assign(config, {"synthesis.image_format": extension, "synthesis.images": 4})
    synthesize(plain, tmp_path / "plain")
    synthesize(assign(plain, {"views.count": 2}), tmp_path / "with")
    assert plain.run_hash() != assign(plain, {"views.count": 2}).run_hash()
    (before,), (after,) = (ShardSet.discover(tmp_path / name).shards for name in ("plain", "with"))
    with before.open() as old, after.open() as new:
        for one, other in zip(before.entries(), after.entries(), strict=True):
            assert old.image_bytes(one) == new.image_bytes(other)
            assert old.meta(one) == new.meta(other)
            assert old.logits(one).tobytes() == new.logits(other).tobytes()
            assert one.views is None
            assert other.views is not None
            assert other.views.size == 2 * 3 * 2


def test_bytes_do_not_depend_on_what_overlaps(config: RunConfig, tmp_path: Path) -> None:
    synthesize(with_views(config), tmp_path / "one")
    synthesize(with_views(config, **{"launch.pipeline_depth": 2, "launch.streams": 2}), tmp_path / "two")
    for name in ("shards/000000.tar", "shards/000001.tar"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_view_does_not_depend_on_how_many_there_are(config: RunConfig, tmp_path: Path) -> None:
    for count in (1, 3):
        synthesize(with_views(config, **{"views.count": count}), tmp_path / str(count))
    few, many = (ShardSet.discover(tmp_path / name).shards[0] for name in ("1", "3"))
    assert np.array_equal(stored(tmp_path / "1", few)[:, 0], stored(tmp_path / "3", many)[:, 0])


def test_a_sample_whose_views_half_precision_does_not_hold_is_quarantined(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer = Synthesizer.load(with_views(config))
    labeller = synthesizer.labeller
    assert labeller is not None
    run_teacher = labeller.teacher.run

    def too_large(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (logits,) = run_teacher(images)
        logits[1, 0] = 1e6
        return (logits,)

    monkeypatch.setattr(labeller.teacher, "run", too_large)
    synthesize(with_views(config), tmp_path / "run", generator=synthesizer)
    assert [record.quarantined for record in RunDirectory(tmp_path / "run").records().values()] == [(1,), (5,)]
    assert verify(tmp_path / "run").problems == ()
    shard = ShardSet.discover(tmp_path / "run").shards[0]
    assert stored(tmp_path / "run", shard).shape == (3, VIEWS, 3)
