"""Images may be stored smaller than they were sampled: the teacher labels what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from prism_fast.config import RunConfig, assign
from prism_fast.dataset.shard_set import ShardSet
from prism_fast.errors import ConfigError
from prism_fast.models.classifier import load_classifier
from prism_fast.operations.verify import verify
from prism_fast.workers.synthesize import synthesize


def test_the_teacher_labels_what_is_stored(config: RunConfig, finished: Path, tmp_path: Path) -> None:
    """The images of a run of 16 px, at 8."""
    small = assign(config, {"synthesis.store_size": 8})
    synthesize(small, tmp_path)
    assert verify(tmp_path).problems == ()
    teacher = load_classifier(config.models.teacher)
    whole, made = (list(ShardSet.discover(run).samples()) for run in (finished, tmp_path))
    assert [sample.index for sample in made] == [sample.index for sample in whole]
    for one, other in zip(whole, made, strict=True):
        assert other.image.shape == (3, 8, 8)
        wanted = interpolate(one.image[None].float(), size=(8, 8), mode="bilinear", antialias=True)[0]
        assert (wanted - other.image.float()).abs().max() <= 1.01  # it is rounded once, not twice
        torch.testing.assert_close(teacher.logits(other.image[None])[0], other.logits, atol=1e-2, rtol=0)


def test_the_shorter_side_is_meant(config: RunConfig) -> None:
    assert assign(config, {"sampling.width": 32, "synthesis.store_size": 8}).stored_size == (8, 16)
    assert config.stored_size == (16, 16)


def test_nothing_is_stored_larger_than_it_was_sampled(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="store_size 17 is larger than the images, whose shorter side is 16"):
        assign(config, {"synthesis.store_size": 17})


def test_a_run_that_stores_what_it_samples_has_the_hash_it_always_had(config: RunConfig) -> None:
    assert assign(config, {"synthesis.store_size": None}).run_hash() == config.run_hash()
    assert assign(config, {"synthesis.store_size": 8}).run_hash() != config.run_hash()
